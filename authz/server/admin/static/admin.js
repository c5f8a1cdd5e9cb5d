// The page of `authz serve --admin`: asks for news once a second, while its tab is visible.

import * as act from "/act.js";
import { get } from "/api.js";
import * as decisions from "/decisions.js";
import { $, notify } from "/dom.js";
import * as explain from "/explain.js";
import { learnOverview, learnPolicy } from "/names.js";
import * as orders from "/orders.js";
import * as organizations from "/organizations.js";
import * as policy from "/policy.js";
import * as replicas from "/replicas.js";
import * as summary from "/summary.js";

const PAUSE = 1000;
// In rounds: these are less urgent, and larger.
const EVERY = { overview: 2, policy: 4 };

let about;
let cursor = "";
let isPaused = false;
let round = 0;

async function look() {
  const isDue = (what) => round % EVERY[what] === 0;
  const [news, overview, rules] = await Promise.all([
    get(`/api/decisions?after=${encodeURIComponent(cursor)}`),
    isDue("overview") ? get("/api/overview") : undefined,
    isDue("policy") ? get("/api/policy") : undefined,
  ]);
  cursor = news.cursor;
  // First, because rows name the replica and the organization.
  if (overview) replicas.show(overview);
  const named = [overview && learnOverview(overview), rules && learnPolicy(rules)];
  decisions.add(news, overview);
  if (named.some(Boolean)) decisions.render();
  explain.suggest(decisions.methods());
  if (overview) {
    summary.show(overview, about.version);
    organizations.show(overview);
    orders.show(overview);
  }
  if (rules) {
    policy.show(rules);
    organizations.showPolicy(rules);
  }
  round += 1;
}

async function refresh() {
  round = 0;
  await look();
}

async function follow() {
  for (;;) {
    if (!isPaused && !document.hidden) {
      try {
        await look();
        say("live", "Live");
        $("trouble").hidden = true;
      } catch (error) {
        say("lost", "Lost");
        $("trouble").textContent = `${error.message} Trying again.`;
        $("trouble").hidden = false;
        round = 0;
      }
    }
    await new Promise((resolve) => { setTimeout(resolve, PAUSE); });
  }
}

function say(state, words) {
  if (isPaused && state === "live") return;
  $("state").dataset.state = state;
  $("state").textContent = words;
}

function begin() {
  decisions.begin(about, organizations.choose);
  organizations.begin(about, decisions.render);
  orders.begin(about);
  explain.begin(about);
  act.begin(refresh);
  $("pause").addEventListener("click", () => {
    isPaused = !isPaused;
    $("pause").textContent = isPaused ? "Resume" : "Pause";
    $("state").dataset.state = isPaused ? "paused" : "live";
    $("state").textContent = isPaused ? "Paused" : "Live";
    notify(isPaused ? "Paused: the page shows how it was." : "Live again.");
  });
}

for (;;) {
  try {
    about = await get("/api/about");
    break;
  } catch {
    await new Promise((resolve) => { setTimeout(resolve, PAUSE); });
  }
}
begin();
await follow();
