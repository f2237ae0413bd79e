// Reads one posted chat with client.js, and prints a line of JSON for each thing that happens: the numbers of events,
// losses, resumes, and the end.
//
//     node client.mjs URL

import { openStream } from "../../proxy/web/client.js";

const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const observe = ({ type, after }) => ["drop", "resume"].includes(type) && say({ type, after });
const answer = openStream(process.argv[2], { body: {}, retry: { delay: 50, max: 200 }, observe });
try {
  for await (const { seq } of answer) say({ type: "event", seq });
} catch ({ code }) {
  say({ type: "thrown", code });
}
say({ type: "end", reason: answer.end.reason });
