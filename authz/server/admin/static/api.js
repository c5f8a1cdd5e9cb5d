// Requests to the server, which is always the one that the page came from.

export class Failure extends Error {
  constructor(status, words) {
    super(words);
    this.status = status;
  }
}

async function answerOf(request) {
  let response;
  try {
    response = await request;
  } catch {
    throw new Failure(0, "The server does not answer.");
  }
  let data;
  try {
    data = await response.json();
  } catch {
    throw new Failure(response.status, `The server answered ${response.status}.`);
  }
  if (!response.ok) throw new Failure(response.status, data.error ?? `The server answered ${response.status}.`);
  return data;
}

export const get = (path) => answerOf(fetch(path, { cache: "no-store", credentials: "omit" }));

export const post = (path, data, headers = {}) => answerOf(fetch(path, {
  method: "POST",
  credentials: "omit",
  headers: { "content-type": "application/json", ...headers },
  body: JSON.stringify(data),
}));
