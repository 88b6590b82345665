// What the steps share: the browser, pages that complain, looking at a page, and step.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

export const { CONSOLE, CONTROL, SECURE, WEFT_CHROMIUM, WEFT_SHOTS } = process.env;
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

// look checks a page at the widths of a phone, a tablet, a laptop and a large screen, zoomed,
// and in both themes: nothing sticks out, text can be read and controls have names (axe);
// and it keeps pictures. axe runs once with each of the two layouts and once in each theme.
export async function look(page, name) {
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
      // axe goes in through the debugger, past the page's policy.
      if (!(await page.evaluate(() => "axe" in window))) await page.evaluate(axe);
      const { violations } = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"], runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"] }));
      const found = violations.map((v) => `${v.id}: ${v.help}: ${v.nodes.map((n) => n.target).join(", ")}`);
      assert.deepEqual(found, [], `${name} at ${size.width} px, ${colorScheme}`);
    }
  }
  await page.setViewportSize(wide);
  await page.emulateMedia({ colorScheme: "light", reducedMotion: "no-preference" });
}

export async function step(name, f) {
  const start = Date.now();
  try {
    await f();
    assert.deepEqual(complaints, []);
  } catch (e) {
    console.error(`FAIL ${name}`, complaints);
    throw e;
  }
  console.log(`ok ${name} (${Date.now() - start} ms)`);
}
