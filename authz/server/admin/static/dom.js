// Helpers that make elements and format values. Texts become text nodes, never markup: callers choose many of them.

export const $ = (id) => document.getElementById(id);

export function make(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in element) element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

export function svg(name, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

const counts = new Intl.NumberFormat("en");
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
export const number = (value) => counts.format(value);
export const short = (value) => (value < 100000 ? number(value) : compact.format(value));
export const plural = (count, one, several = `${one}s`) => `${number(count)} ${count === 1 ? one : several}`;

const DAY = 86400;
const two = (value) => String(value).padStart(2, "0");
const zones = new Intl.DateTimeFormat("en", { timeZoneName: "short" });
const zoneOf = (date) => zones.formatToParts(date).find((part) => part.type === "timeZoneName")?.value ?? "";

// A moment in the zone of the browser, which it names, because the server and its logs may be in another: the title has
// UTC. Its date is left out where the time alone says which day is meant.
export function moment(seconds, now = Date.now() / 1000) {
  const date = new Date(seconds * 1000);
  const time = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  const day = Math.abs(now - seconds) < DAY / 2 ? "" : `${date.toLocaleDateString("en-CA")} `;
  const utc = date.toISOString();
  return make("time", { dateTime: utc, title: `${utc.slice(0, 10)} ${utc.slice(11, 19)} UTC` },
    `${day}${time}`, " ", make("span", { className: "zone" }, zoneOf(date)));
}

export function span(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

// Ids share their beginnings, so their ends are shown to tell them apart.
export const brief = (id) => (id.length > 20 ? `${id.slice(0, 11)}…${id.slice(-4)}` : id);

export const firstSentence = (words) => words.split(/(?<=\.) /)[0];

export function verdict(word) {
  return make("span", { className: `verdict ${word}` }, word);
}

export function replace(parent, children) {
  // The keyboard focus stays on the same element.
  const key = parent.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  parent.replaceChildren(...children);
  if (key !== undefined) parent.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
}

let forgetting;
export function notify(words) {
  const notice = $("notice");
  notice.textContent = words;
  clearTimeout(forgetting);
  forgetting = setTimeout(() => { notice.textContent = ""; }, 8000);
}
