// What the page's own thread does, from the browser's trace.
import { browser } from "./lib.mjs";

const recorded = ["-*", "disabled-by-default-devtools.timeline"];

// tasks has the browser record while f runs, and sums up the tasks of the main thread of the
// page: how many took longer than 50 ms by the clock, and how many of processor time. The
// first counts also what the machine did for others meanwhile, the second does not. used is
// the processor time of all of them, longest that of the longest, in milliseconds.
export async function tasks(page, f) {
  await browser.startTracing(page, { categories: recorded });
  const result = await f();
  const { traceEvents } = JSON.parse(await browser.stopTracing());
  const thread = (e) => `${e.pid}:${e.tid}`;
  const mains = new Set(traceEvents.filter((e) => e.name === "thread_name" && e.args.name === "CrRendererMain").map(thread));
  const of = new Map();
  for (const e of traceEvents) {
    if (e.name !== "RunTask" || e.ph !== "X" || !mains.has(thread(e))) continue;
    if (!of.has(thread(e))) of.set(thread(e), []);
    of.get(thread(e)).push({ took: e.dur / 1000, used: (e.tdur ?? 0) / 1000 });
  }
  // Of all pages that one which did most.
  const sum = (list) => list.reduce((n, t) => n + t.used, 0);
  const list = [...of.values()].sort((a, b) => sum(b) - sum(a))[0] ?? [];
  return {
    result,
    over50: list.filter((t) => t.took > 50).length,
    used50: list.filter((t) => t.used > 50).length,
    longest: Math.max(0, ...list.map((t) => t.used)),
    used: sum(list),
  };
}

export const said = (t) => `${t.over50} tasks over 50 ms by the clock, ${t.used50} over 50 ms of processor time (longest ${t.longest.toFixed(0)} ms, all ${t.used.toFixed(0)} ms)`;
