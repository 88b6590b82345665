// What the steps share: the browser, pages that complain, looking at a page, and step.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

export const { CONSOLE, CONTROL, SECURE, GROUP, WEFT_CHROMIUM, WEFT_SHOTS } = process.env;
// The console at a name, over TLS.
export const NAMED = "https://weft.example:" + SECURE.split(":")[1];
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
export const password = "correct horse battery";
export const wide = { width: 1440, height: 900 };
export const narrow = { width: 390, height: 844 };
const tablet = { width: 768, height: 1024 };
const widest = { width: 1920, height: 1080 };
// What is left of a screen of 1280 by 1024 px at four times its size, and of 1440 by 900 px
// at twice.
const zoomed = [{ width: 320, height: 256 }, { width: 720, height: 450 }];

export const control = async (path, body) => {
  const res = await fetch(CONTROL + path, { method: "POST", body: typeof body === "string" ? body : body && new URLSearchParams(body) });
  assert.ok(res.ok, `${path}: ${res.status}`);
  return res.text();
};

// household adds a small household of devices, if no step has done so before.
let added;
export const household = () => (added ??= control("/sample"));

export const browser = await chromium.launch({
  executablePath: WEFT_CHROMIUM,
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--host-resolver-rules=MAP weft.example 127.0.0.1", "--ignore-certificate-errors"],
});

// Whatever a page complains about is a failure: policy violations, script
// errors, dialogs (an alert that ran), requests to anywhere else.
const complaints = [];
let expected = /^$/;

// expect has pages complain of what matches, until the next call; without a pattern of nothing.
export const expect = (pattern = /^$/) => (expected = pattern);

// run is what one step leaves to the next: page is a page of the owner's, joined the id of
// the device that has joined.
export const run = {};

export async function newPage(options = {}) {
  const context = await browser.newContext({ viewport: wide, ...options });
  await context.route("**", (route) => {
    const url = route.request().url();
    if (!url.startsWith(CONSOLE) && !url.startsWith(NAMED)) {
      complaints.push(`request to ${url}`);
      return route.abort();
    }
    return route.continue();
  });
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  page.on("console", (m) => {
    if (["error", "warning"].includes(m.type()) && !expected.test(m.text())) complaints.push(`${page.url()}: ${m.type()}: ${m.text()}`);
  });
  page.on("pageerror", (e) => complaints.push(`${page.url()}: ${e}`));
  page.on("dialog", (d) => {
    complaints.push(`${page.url()}: dialog ${d.message()}`);
    d.dismiss();
  });
  return page;
}

// signInAgain signs in anew and goes to a page: what wants a sign-in of the last minutes is
// then done, however long the steps before took.
export async function signInAgain(page, next) {
  await page.goto(`${CONSOLE}/sign-in/again?next=${next}`);
  await page.fill("#password", password);
  await page.getByRole("button", { name: "Sign in", exact: true }).click();
  await page.waitForURL(CONSOLE + next);
}

// tabTo goes on by keyboard until what matches a selector has the focus.
export async function tabTo(page, selector, most = 80) {
  for (let i = 0; i < most; i++) {
    if (await page.evaluate((s) => document.activeElement.matches(s), selector)) return;
    await page.keyboard.press("Tab");
  }
  assert.fail(`the keyboard does not reach ${selector}`);
}

// fits checks that nothing sticks out of a page, at the size it has.
async function fits(page, name) {
  const { width } = page.viewportSize();
  const out = await page.evaluate(() => {
    const root = document.documentElement;
    const over = root.scrollWidth - root.clientWidth;
    const far = over > 0 ? [...document.querySelectorAll("body *")].filter((el) => el.getBoundingClientRect().right > root.clientWidth + 1).slice(0, 3) : [];
    return { over, far: far.map((el) => `${el.tagName.toLowerCase()}.${el.className.baseVal ?? el.className}`) };
  });
  assert.ok(out.over <= 0, `${name} at ${width} px: ${out.over} px stick out: ${out.far}`);
}

// zoom checks that a page can be used where everything is large: nothing sticks out, fields
// are not smaller than a phone leaves alone.
export async function zoom(page, name) {
  for (const size of zoomed) {
    await page.setViewportSize(size);
    await fits(page, name);
  }
  const small = await page.evaluate(() => [...document.querySelectorAll("main :is(input:not([type=checkbox], [type=radio], [type=hidden]), select, textarea)")]
    .filter((el) => el.checkVisibility() && parseFloat(getComputedStyle(el).fontSize) < 16).map((el) => el.id || el.name));
  assert.deepEqual(small, [], `${name}: fields of less than 16 px`);
}

// What somebody operates, by what Chromium calls its role. A summary has another role where
// its details are one of a group.
const controls = { link: "link", button: "button", DisclosureTriangle: "summary", DisclosureTriangleGrouped: "summary", textbox: "field", searchbox: "field", spinbutton: "field", Date: "field", combobox: "choice", ComboBoxSelect: "choice", ComboBoxMenuButton: "choice", ComboBoxGrouping: "choice", listbox: "choice", checkbox: "checkbox", radio: "radio", switch: "checkbox", option: "option" };

// does is what a control does: where it leads, what it sends or sets, or else itself. It runs
// in the page.
function does() {
  const el = this instanceof Element ? this : this.parentElement;
  if (el instanceof HTMLOptionElement) return null; // told apart by the choice that it is in
  const more = [...el.attributes].filter((a) => /^(hx-|data-(copy|line|column|reveal))/.test(a.name)).map((a) => `${a.name}=${a.value}`).join(" ");
  if (el instanceof HTMLAnchorElement) return `to ${el.href} ${more}`;
  if (el.form && (!(el instanceof HTMLButtonElement) || el.type === "submit")) {
    const to = `${el.getAttribute("formaction") ?? el.form.getAttribute("action")} with ${[...el.form.elements].filter((f) => f.type === "hidden").map((f) => `${f.name}=${f.value}`)}`;
    if (el instanceof HTMLButtonElement) return `sends ${el.name}=${el.value} ${el.form.method} ${to} ${more}`;
    return `sets ${el.name}${/^(checkbox|radio)$/.test(el.type) ? `=${el.value}` : ""} of ${to} ${more}`;
  }
  if (el.tagName === "SUMMARY") return `shows ${el.parentElement.innerHTML}`;
  return more || `is ${el.tagName} ${[...document.querySelectorAll("*")].indexOf(el)}`;
}

// debuggerOf is a session with the debugger of a page. It stays: as one ends, the page loses
// the authenticators that another has given it.
const sessions = new WeakMap(); // by page
async function debuggerOf(page) {
  if (!sessions.has(page)) sessions.set(page, await page.context().newCDPSession(page));
  return sessions.get(page);
}

// names checks that no two controls of a page that are called the same do different things:
// whoever hears only their names could not tell them apart. The names are those that the
// browser tells a screen reader. It does so with what is open, and if wanted with all opened.
async function names(page, name, openAll) {
  const cdp = await debuggerOf(page);
  const twice = new Set();
  const what = async (backendNodeId) => {
    try {
      const { object } = await cdp.send("DOM.resolveNode", { backendNodeId });
      return (await cdp.send("Runtime.callFunctionOn", { objectId: object.objectId, functionDeclaration: `${does}`, returnByValue: true })).result.value;
    } catch {
      return null; // a live update has taken it away
    }
  };
  const find = async () => {
    const called = new Map();
    for (const n of (await cdp.send("Accessibility.getFullAXTree")).nodes) {
      const role = !n.ignored && controls[n.role?.value];
      if (!role || !n.backendDOMNodeId) continue;
      const key = `${role} "${(n.name?.value ?? "").replace(/\s+/g, " ").trim()}"`;
      called.set(key, [...(called.get(key) ?? []), n.backendDOMNodeId]);
    }
    for (const [key, ids] of called) {
      if (ids.length < 2) continue;
      const things = new Set(await Promise.all(ids.map(what)));
      things.delete(null);
      if (things.size > 1) twice.add(`${key}: ${[...things].join("; ")}`);
    }
  };
  await find();
  if (openAll) {
    // Of a group, one at a time can be open.
    const opened = await page.evaluateHandle(() => [...document.querySelectorAll("main details:not([open])")].filter((d) => !d.name || !document.querySelector(`details[open][name="${d.name}"]`)).map((d) => ((d.open = true), d)));
    if (await opened.evaluate((list) => list.length)) await find();
    await opened.evaluate((list) => list.forEach((d) => (d.open = false)));
  }
  assert.deepEqual([...twice].map((t) => t.slice(0, 500)), [], `${name} at ${page.viewportSize().width} px: names of more than one control`);
}

// axeOf finds what axe objects to on a page. Of rows of a list that differ in nothing but
// their words it looks at the first and at the last: that they are called apart is looked at
// by names. What closed details hold is taken out meanwhile: it is not drawn, and axe would
// ask for the style of every element of it. It runs in the page.
async function axeOf() {
  const shape = (node) => {
    if (!(node instanceof Element)) return node.nodeType === Node.TEXT_NODE && node.data.trim() ? "." : "";
    const attributes = [...node.attributes].map(({ name, value }) => (/^(class|type|role|open|hidden|disabled|dir|aria-(?!label$).*|data-state)$/.test(name) ? `${name}=${value}` : name + (value.trim() ? "" : "=")));
    return `<${node.tagName} ${attributes} ${node.matches(":checked")} ${node.matches(":focus")}${[...node.childNodes].map(shape).join("")}>`;
  };
  const alike = [];
  for (const list of document.querySelectorAll(":is(tbody, ol, ul):not(tbody *)")) {
    const seen = new Set();
    for (const row of [...list.children].slice(0, -1)) {
      const s = shape(row);
      if (seen.has(s)) alike.push(row);
      seen.add(s);
    }
  }
  const ids = [...document.querySelectorAll("[id]")].map((el) => el.id);
  const twice = ids.filter((id, i) => ids.indexOf(id) !== i);
  const held = [...document.querySelectorAll("main details:not([open]) > :not(summary)")].map((el) => {
    const place = document.createComment("");
    el.replaceWith(place);
    return { el, place };
  });
  const { violations } = await axe.run({ include: [document], exclude: alike }, { resultTypes: ["violations"], preload: false, runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"] });
  for (const { el, place } of held) place.replaceWith(el); // if no live update has come meanwhile
  return [...violations.map((v) => `${v.id}: ${v.help}: ${v.nodes.map((n) => n.target).join(", ")}`), ...twice.map((id) => `two elements have the id ${id}`)];
}

// look checks a page at the widths of a phone, a tablet, a laptop and a large screen, zoomed,
// and in both themes: nothing sticks out, text can be read and controls have names (axe);
// and it keeps pictures. axe runs once with each of the two layouts and once in each theme.
let looking = 0; // ms
export async function look(page, name) {
  const start = performance.now();
  await page.waitForLoadState("load"); // with its style sheet
  await page.emulateMedia({ reducedMotion: "reduce" });
  await zoom(page, name);
  for (const size of [narrow, tablet, wide, widest]) {
    await page.setViewportSize(size);
    await fits(page, name);
    for (const colorScheme of ["light", "dark"]) {
      const checked = size === narrow ? colorScheme === "dark" : size === wide && colorScheme === "light";
      if (!checked && !WEFT_SHOTS) continue;
      await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
      if (WEFT_SHOTS) await page.screenshot({ path: `${WEFT_SHOTS}/${name}-${size.width}-${colorScheme}.png`, fullPage: true });
      if (!checked) continue;
      await names(page, name, size === wide);
      // axe goes in through the debugger, past the page's policy.
      if (!(await page.evaluate(() => "axe" in window))) await page.evaluate(axe);
      const found = await page.evaluate(axeOf);
      assert.deepEqual(found, [], `${name} at ${size.width} px, ${colorScheme}`);
    }
  }
  await page.setViewportSize(wide);
  await page.emulateMedia({ colorScheme: "light", reducedMotion: "no-preference" });
  looking += performance.now() - start;
}

// taken says how long all took, and how much of that was looking at pages.
export const taken = () => console.log(`${prefix}all in ${Math.round(performance.now())} ms, of which ${Math.round(looking)} ms looked at pages`);
const prefix = GROUP ? GROUP + ": " : "";

export async function step(name, f) {
  const [start, before] = [performance.now(), looking];
  try {
    await f();
    assert.deepEqual(complaints, []);
  } catch (e) {
    console.error(`${prefix}FAIL ${name}`, complaints);
    throw e;
  }
  console.log(`${prefix}ok ${name} (${Math.round(performance.now() - start)} ms, ${Math.round(looking - before)} of them looking)`);
}
