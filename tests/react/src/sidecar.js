import { DefaultChatTransport } from "ai";

// A transport for useChat, and a stop that names the stream it stops.
export function sidecar({ api, body }) {
  let newest = {};

  async function fetchStream(url, init) {
    const own = (newest = {});
    const response = await fetch(url, init);
    own.stream = response.headers.get("Stream-Id");
    return response;
  }

  const transport = new DefaultChatTransport({
    api,
    fetch: fetchStream,
    prepareSendMessagesRequest: ({ id, messages }) => ({ body: { id, ...body(messages) } }),
  });

  async function cancel() {
    if (newest.stream) await fetch(`/_streams/${newest.stream}/cancel`, { method: "POST" });
  }

  return { transport, cancel };
}
