// One WebSocket on Node's ws, driven over stdin and told of over stdout: a JSON document a line each way.
//
//   node peer.mjs '{"url": …, "subprotocols": […], "headers": {…}, "deflate": true}'
//
// stdin:   {"do":"text","data":"…"} {"do":"binary","data":"(base64)"} {"do":"close","code":1000,"reason":""}
//          {"do":"drop"}, which leaves without a word
// stdout:  {"what":"open","subprotocol":"…","extensions":"…"} or {"what":"refused","status":403}, then
//          {"what":"text","data":"…"} {"what":"binary","data":"(base64)"}, and at last
//          {"what":"close","code":1000,"reason":"…"}
import readline from "node:readline";
import WebSocket from "ws";

const { url, subprotocols, headers, deflate } = JSON.parse(process.argv[2]);
const socket = new WebSocket(url, subprotocols, {
  headers,
  perMessageDeflate: deflate,
  maxPayload: 64 * 1024 * 1024,
});

function tell(what, more) {
  process.stdout.write(JSON.stringify({ what, ...more }) + "\n");
}

function leave() {
  process.stdin.destroy(); // nothing is left to wait for, and what was told is still written
}

const deeds = {
  text: ({ data }) => socket.send(data),
  binary: ({ data }) => socket.send(Buffer.from(data, "base64")),
  close: ({ code, reason }) => socket.close(code, reason),
  drop: () => socket.terminate(),
};

socket.on("open", () => tell("open", { subprotocol: socket.protocol, extensions: socket.extensions }));
socket.on("unexpected-response", (_request, response) => {
  tell("refused", { status: response.statusCode });
  socket.terminate();
});
socket.on("message", (data, isBinary) =>
  isBinary
    ? tell("binary", { data: data.toString("base64") })
    : tell("text", { data: data.toString() }),
);
socket.on("error", (error) => process.stderr.write(`${error}\n`));
socket.on("close", (code, reason) => {
  tell("close", { code, reason: reason.toString() });
  leave();
});

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const order = JSON.parse(line);
  deeds[order.do](order);
});
