// How late events are: opens streams of the benchmark's upstream at a URL, and prints the lateness of their events in
// microseconds, from the upstream's write to this reader, as a sorted JSON array.
//
//     node lateness.mjs URL STREAMS SECONDS
//
// https is spoken in HTTP/2, over one connection, as a browser does; http in HTTP/1.1.

import http from "node:http";
import http2 from "node:http2";

const [url, streams, seconds] = [new URL(process.argv[2]), Number(process.argv[3]), Number(process.argv[4])];
const lateness = [];
let began = false;

// An event's mark: its number, and the time of its writing on the clock that hrtime reads, in nanoseconds.
const MARK = /@\d{10}:(\d{20})/g;

function read(stream) {
  let kept = "";
  stream.setEncoding("utf8");
  stream.on("data", (text) => {
    const now = process.hrtime.bigint();
    kept += text;
    const end = kept.lastIndexOf("\n\n") + 1;
    if (began) for (const [, time] of kept.slice(0, end).matchAll(MARK)) lateness.push(Number(now - BigInt(time)) / 1000);
    kept = kept.slice(end);
  });
}

const body = "{}";
const headers = { "content-type": "application/json", "content-length": Buffer.byteLength(body) };
const session = url.protocol === "https:" ? http2.connect(url.origin, { rejectUnauthorized: false }) : null;

for (let n = 0; n < streams; n++) {
  if (session) {
    const stream = session.request({ ":method": "POST", ":path": url.pathname + url.search, ...headers });
    read(stream);
    stream.end(body);
  } else {
    http.request(url, { method: "POST", headers, agent: false }, read).end(body);
  }
}

// By then all are open, and this program is compiled.
const WARM_UP = 1500;

setTimeout(() => (began = true), WARM_UP);
setTimeout(() => {
  process.stdout.write(JSON.stringify(lateness.sort((a, b) => a - b)), () => process.exit(0));
}, WARM_UP + seconds * 1000);
