// Orders are given here. The operator types the secret; the page keeps it, and the name, in memory until it is closed.

import { post } from "/api.js";
import { $, notify } from "/dom.js";
import { named, ownerOf, titleOf, titleOfClient } from "/names.js";

const WORDS = {
  suspend: {
    title: "Suspend",
    words: "Every call of it is refused from now on.",
    done: "is suspended",
  },
  resume: {
    title: "Resume",
    words: "Its calls are decided by its tokens and the policy again.",
    done: "is resumed",
  },
  revoke: {
    title: "Revoke",
    words: "Every token of it is refused from now on.",
    done: "is revoked",
  },
  reinstate: {
    title: "Reinstate",
    words: "Its tokens are good again, until they expire.",
    done: "is reinstated",
  },
};
const SPECIAL = {
  "revoke token": "It is refused from now on.",
  "reinstate token": "It is good again, until it expires.",
  "revoke key": "Every token that is signed with it is refused from now on.",
  "reinstate key": "Tokens that are signed with it are good again, until they expire.",
};

let order;
let secret = "";
let by = "";
let refresh = () => {};

export function begin(onDone) {
  refresh = onDone;
  $("act-cancel").addEventListener("click", () => $("act").close());
  $("act-form").addEventListener("submit", (event) => {
    event.preventDefault();
    carryOut();
  });
}

export function ask(given) {
  order = given;
  const { verb, kind, id } = order;
  const words = WORDS[verb];
  const isLifting = verb === "resume" || verb === "reinstate";
  $("act-title").textContent = `${words.title} this ${kind}?`;
  const owner = kind === "client" ? ownerOf(id) : "";
  $("act-id").textContent = kind === "organization" ? named(id)
    : [kind === "client" ? titleOfClient(id) : id, owner && `of ${named(owner)}`].filter(Boolean).join(" · ");
  $("act-words").textContent = order.issued_before
    ? "Every token of it that was issued until now is refused; newer ones are not."
    : SPECIAL[`${verb} ${kind}`] ?? words.words;
  $("act-confirm").textContent = words.title;
  $("act-error").hidden = true;
  $("act-reason").value = "";
  $("act-until").value = "";
  $("act-lasting").hidden = isLifting;
  $("act-by").value = by;
  $("act-secret").value = secret;
  $("act").showModal();
  (secret ? $("act-confirm") : $("act-secret")).focus();
}

async function carryOut() {
  const { verb } = order;
  $("act-confirm").disabled = true;
  try {
    const shown = $("act-secret").value;
    const done = await post("/api/orders", written(), { authorization: `Bearer ${shown}` });
    secret = shown;
    by = $("act-by").value.trim();
    $("act").close();
    notify(`${called()} ${WORDS[verb].done}${where(done)}${verb === "resume" && done.by_policy ? STILL : "."}`);
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

function called() {
  const { kind, id } = order;
  const name = kind === "organization" ? titleOf(id) : id;
  return name === id ? id : `${name} (${id})`;
}

function written() {
  const more = {};
  const [reason, name, lasting] = [$("act-reason").value.trim(), $("act-by").value.trim(), $("act-until").value];
  if (reason) more.reason = reason;
  if (name) more.by = name;
  if (lasting && !$("act-lasting").hidden) more.until = Math.round(Date.now() / 1000) + Number(lasting);
  return { ...order, ...more };
}

const STILL = ", but the policy file suspends it as well: it stays suspended until that says otherwise.";

function where(done) {
  if (done.pending > 0) return ` in ${done.workers} workers; ${done.pending} will hear of it as soon as they have started`;
  return done.workers > 1 ? ` in all ${done.workers} workers` : "";
}
