// A service that knows nothing of a mesh: answers requests on 127.0.0.1 with its name, and with what the next one says.
//
// usage: hop.mjs NAME PORT [URL]

import http from "node:http";

const [name, port, further] = process.argv.slice(2);

const ask = (url) =>
  new Promise((resolve, reject) => {
    http
      .get(url, (answer) => {
        let text = "";
        answer.on("data", (data) => (text += data));
        answer.on("end", () => resolve(text));
        answer.on("error", reject);
      })
      .on("error", reject);
  });

http
  .createServer(async (request, response) => {
    try {
      const rest = further ? " < " + (await ask(further.replace(/\/$/, "") + request.url)) : "";
      response.writeHead(200, { "content-type": "text/plain" }).end(name + rest);
    } catch (error) {
      response.writeHead(502).end(String(error));
    }
  })
  .listen(Number(port), "127.0.0.1");
