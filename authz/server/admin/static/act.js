// The four actions. The operator types the secret here; the page keeps it in memory until it is closed.

import { post } from "/api.js";
import { $, notify } from "/dom.js";

const WORDS = {
  suspend: {
    title: "Suspend this organization?",
    words: "Every call of it is refused from now on, until it is resumed or the server restarts.",
    button: "Suspend",
    done: "is suspended",
  },
  resume: {
    title: "Resume this organization?",
    words: "Its calls are decided by its tokens and the policy again.",
    button: "Resume",
    done: "is resumed",
  },
  revoke: {
    title: "Revoke this client?",
    words: "Every token of it is refused from now on, until it is reinstated or the server restarts.",
    button: "Revoke",
    done: "is revoked",
  },
  reinstate: {
    title: "Reinstate this client?",
    words: "Its tokens are good again, until they expire.",
    button: "Reinstate",
    done: "is reinstated",
  },
};

let order;
let secret = "";
let refresh = () => {};

export function begin(onDone) {
  refresh = onDone;
  $("act-cancel").addEventListener("click", () => $("act").close());
  $("act-form").addEventListener("submit", (event) => {
    event.preventDefault();
    carryOut();
  });
}

export function ask(verb, id) {
  order = { verb, id };
  const words = WORDS[verb];
  $("act-title").textContent = words.title;
  $("act-id").textContent = id;
  $("act-words").textContent = words.words;
  $("act-confirm").textContent = words.button;
  $("act-error").hidden = true;
  $("act-secret").value = secret;
  $("act").showModal();
  (secret ? $("act-confirm") : $("act-secret")).focus();
}

async function carryOut() {
  const { verb, id } = order;
  $("act-confirm").disabled = true;
  try {
    const shown = $("act-secret").value;
    const done = await post("/api/orders", order, { authorization: `Bearer ${shown}` });
    secret = shown;
    $("act").close();
    notify(`${id} ${WORDS[verb].done}${where(done)}${verb === "resume" && done.by_policy ? STILL : "."}`);
    await refresh();
  } catch (error) {
    if (error.status === 401) secret = "";
    $("act-error").textContent = error.message;
    $("act-error").hidden = false;
    $("act-secret").focus();
  } finally {
    $("act-confirm").disabled = false;
  }
}

const STILL = ", but the policy file suspends it as well: it stays suspended until that says otherwise.";

function where(done) {
  if (done.pending > 0) return ` in ${done.workers} workers; ${done.pending} will hear of it as soon as they have started`;
  return done.workers > 1 ? ` in all ${done.workers} workers` : "";
}
