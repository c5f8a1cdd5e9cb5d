// Totals, pace, keys, and facts about the server itself.

import { $, brief, make, number, plural, short, span, svg } from "/dom.js";

const BUCKET = 5;
const BUCKETS = 60;
const MOST_KIDS = 8;
const MEANINGS = {
  allowed: "The call went on to its server.",
  denied: "The caller may not do that, or did not prove who it is.",
  undecided: "No verdict was possible, for example because the issuer's keys could not be had. The call was refused.",
  failed: "An unexpected error, which the server's log has. The call was refused.",
};

export function show(overview, version) {
  showServer(overview, version);
  showTotals(overview.totals);
  showPace(overview);
  showKeys(overview.workers);
}

function showServer({ workers, silent, now }, version) {
  if (workers.length === 0) {
    $("server").textContent = "The workers are starting";
    return;
  }
  const started = Math.min(...workers.map((worker) => worker.started));
  const parts = [workers.length > 1 ? plural(workers.length, "worker") : `process ${workers[0].pid}`];
  parts.push(`up ${span(now - started)}`);
  if (silent > 0) parts.push(`${plural(silent, "worker")} not answering`);
  $("server").textContent = [...parts, `version ${version}`].join(" · ");
}

function showTotals(totals) {
  const sum = Object.values(totals).reduce((one, other) => one + other, 0);
  $("totals").replaceChildren(...Object.entries(totals).map(([verdict, count]) => {
    const share = sum > 0 && count > 0 ? `${((100 * count) / sum).toFixed(1)}\u00a0%` : "";
    return make("div", {},
      make("dt", { className: verdict, title: MEANINGS[verdict] }, verdict),
      make("dd", { title: number(count) }, short(count), make("small", {}, share)));
  }));
}

function showPace({ pace, now }) {
  const last = Math.floor(now / BUCKET) * BUCKET;
  const first = last - BUCKET * (BUCKETS - 1);
  const shown = pace.filter(([second]) => second >= first);
  const most = Math.max(1, ...shown.map(([, allowed, refused]) => allowed + refused));
  const width = 600 / BUCKETS;
  const bars = shown.flatMap(([second, allowed, refused]) => {
    const x = ((second - first) / BUCKET) * width;
    const height = (count) => (count > 0 ? Math.max(2, (54 * count) / most) : 0);
    const low = height(allowed);
    const top = height(refused);
    const bar = (kind, y, tall) => svg("rect", { class: kind, x: x + 1, y, width: width - 2, height: tall });
    return [bar("allowed", 55 - low, low), bar("refused", 55 - low - top, top)];
  });
  const chart = $("pace");
  chart.replaceChildren(svg("rect", { class: "axis", x: 0, y: 55, width: 600, height: 1 }), ...bars);
  const allowed = shown.reduce((sum, [, count]) => sum + count, 0);
  const refused = shown.reduce((sum, [, , count]) => sum + count, 0);
  chart.setAttribute("aria-label", `In the last 5 minutes ${number(allowed)} calls were allowed and ${number(refused)} refused`);
  const [, ...latest] = shown.find(([second]) => second === last - BUCKET) ?? [0, 0, 0];
  $("rate").textContent = `${((latest[0] + latest[1]) / BUCKET).toFixed(1)} calls/s now`;
}

function showKeys(workers) {
  const issuers = new Map();
  for (const worker of workers) {
    for (const [issuer, health] of Object.entries(worker.keys)) {
      issuers.set(issuer, [...(issuers.get(issuer) ?? []), health]);
    }
  }
  $("key-rows").replaceChildren(...[...issuers].map(([issuer, all]) => row(issuer, all)));
}

function named(kid) {
  return make("code", { className: "kid", title: kid }, brief(kid));
}

function row(issuer, all) {
  const ages = all.map((health) => health.age).filter((age) => age !== null);
  const failing = all.find((health) => health.error);
  const unready = all.some((health) => !health.is_ready);
  const counts = [...new Set(all.map((health) => health.keys))];
  const parts = [counts.length === 1 ? plural(counts[0], "key") : `${Math.min(...counts)} to ${Math.max(...counts)} keys`];
  parts.push(ages.length > 0 ? `fetched ${span(Math.max(...ages))} ago` : unready ? "never fetched" : "never change");
  const lasts = all.map((health) => health.lasts).filter((left) => left !== null);
  if (lasts.length > 0 && !unready) parts.push(`good for ${span(Math.min(...lasts))} without the issuer`);
  if (all.length > 1) parts.push(`oldest of ${all.length} workers`);
  const kids = [...new Set(all.flatMap((health) => health.kids))].filter(Boolean);
  const tag = unready ? ["deny", "✕ none"] : failing ? ["warn", "! failing"] : ["allow", "✓ good"];
  return make("li", {},
    make("div", { className: "head" },
      make("code", { title: issuer }, issuer.length > 60 ? brief(issuer) : issuer),
      make("span", { className: `tag ${tag[0]}` }, tag[1])),
    make("p", { className: "meta" }, parts.join(" · ")),
    ...(kids.length > 0 ? [make("p", { className: "meta" }, ...kids.slice(0, MOST_KIDS).map(named))] : []),
    ...(failing ? [make("p", { className: "meta" }, `Last error: ${failing.error}. ${failing.error_means ?? ""}`)] : []),
  );
}
