// How much the chosen organization uses, hour by hour and day by day, from the store that replicas share.

import { get } from "/api.js";
import { make, number, short, svg } from "/dom.js";

const STALE = 10000;
const HOUR = 3600;
const DAY = 86400;
// As in a chart of the whole width; it is stretched.
const WIDTH = 600;
// Of a longer name its end is shown, in which methods differ.
const LONG = 34;

let known = { id: "", at: 0, told: null };

export function usage(id, changed) {
  if (known.id !== id || Date.now() - known.at > STALE) ask(id, changed);
  const told = known.id === id ? known.told : null;
  if (!told?.hours) return [];
  return [
    plot("Last 24 hours", told.hours, told.now, HOUR, 25),
    plot("Last 30 days", told.days, told.now, DAY, 30),
    make("ul", { className: "clients" }, ...told.methods.map(([method, count]) => make("li", {},
      make("code", { title: method }, method.length > LONG ? `…${method.slice(1 - LONG)}` : method), make("span", { className: "meta" }, number(count))))),
  ];
}

async function ask(id, changed) {
  known = { id, at: Date.now(), told: known.id === id ? known.told : null };
  try {
    const told = await get(`/api/usage?organization=${encodeURIComponent(id)}`);
    if (known.id !== id) return;
    known.told = told;
    changed();
  } catch {
    // What was known stays; the page asks again.
  }
}

function plot(title, counts, now, seconds, periods) {
  const first = Math.floor(now / seconds) * seconds - seconds * (periods - 1);
  const shown = counts.filter(([begin]) => begin >= first);
  const most = Math.max(1, ...shown.map(([, allowed, refused]) => allowed + refused));
  const width = WIDTH / periods;
  const height = (count) => (count > 0 ? Math.max(2, (54 * count) / most) : 0);
  const bars = shown.flatMap(([begin, allowed, refused]) => {
    const x = ((begin - first) / seconds) * width;
    const bar = (kind, y, tall) => svg("rect", { class: kind, x: x + 1, y, width: width - 2, height: tall });
    return [
      bar("allowed", 55 - height(allowed), height(allowed)),
      bar("refused", 55 - height(allowed) - height(refused), height(refused)),
    ];
  });
  const sum = (place) => shown.reduce((total, each) => total + each[place], 0);
  const words = `${title}: ${number(sum(1))} calls were allowed and ${number(sum(2))} refused`;
  const chart = svg("svg", { viewBox: `0 0 ${WIDTH} 56`, preserveAspectRatio: "none", role: "img", "aria-label": words });
  chart.append(svg("rect", { class: "axis", x: 0, y: 55, width: WIDTH, height: 1 }), ...bars);
  return make("figure", { className: "pace" },
    make("figcaption", {}, make("span", {}, title), make("span", { className: "meta" }, `${short(sum(1))} allowed, ${short(sum(2))} refused`)),
    chart);
}
