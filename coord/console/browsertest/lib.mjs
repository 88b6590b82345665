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
export const wide = { width: 1280, height: 860 };
export const narrow = { width: 390, height: 844 };

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

// look checks a page at both widths and in both themes: nothing sticks out,
// text can be read and controls have names (axe), and keeps a picture.
export async function look(page, name) {
  for (const size of [narrow, wide]) {
    await page.setViewportSize(size);
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
      const out = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      assert.ok(out <= 0, `${name} at ${size.width} px: ${out} px stick out`);
      if (WEFT_SHOTS) await page.screenshot({ path: `${WEFT_SHOTS}/${name}-${size.width}-${colorScheme}.png`, fullPage: true });
      if ((size === wide) === (colorScheme === "dark")) continue;
      // axe goes in through the debugger, past the page's policy.
      await page.evaluate(axe);
      const { violations } = await page.evaluate(() => axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"] }));
      const found = violations.map((v) => `${v.id}: ${v.help}: ${v.nodes.map((n) => n.target).join(", ")}`);
      assert.deepEqual(found, [], `${name} at ${size.width} px, ${colorScheme}`);
    }
  }
  await page.emulateMedia({ colorScheme: "light", reducedMotion: "no-preference" });
}

export async function step(name, f) {
  const start = Date.now();
  try {
    await f();
    assert.deepEqual(complaints, []);
  } catch (e) {
    console.error(`FAIL ${name}`);
    throw e;
  }
  console.log(`ok ${name} (${Date.now() - start} ms)`);
}
