// Drives the console in Chromium; started by browser_test.go with CONSOLE (the
// site), CONTROL (what devices and the command line would do), WEFT_CHROMIUM
// and, for screenshots, WEFT_SHOTS. The first failure ends it with status 1.
import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const { CONSOLE, CONTROL, SECURE, WEFT_CHROMIUM, WEFT_SHOTS } = process.env;
// The console at a name, over TLS.
const NAMED = "https://weft.example:" + SECURE.split(":")[1];
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const password = "correct horse battery";
const wide = { width: 1280, height: 860 };
const narrow = { width: 390, height: 844 };

const control = async (path, body) => {
  const res = await fetch(CONTROL + path, { method: "POST", body: typeof body === "string" ? body : body && new URLSearchParams(body) });
  assert.ok(res.ok, `${path}: ${res.status}`);
  return res.text();
};

const browser = await chromium.launch({
  executablePath: WEFT_CHROMIUM,
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--host-resolver-rules=MAP weft.example 127.0.0.1", "--ignore-certificate-errors"],
});

// Whatever a page complains about is a failure: policy violations, script
// errors, dialogs (an alert that ran), requests to anywhere else.
const complaints = [];
let expected = /^$/;
async function newPage(options = {}) {
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
async function look(page, name) {
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

async function step(name, f) {
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

let page;
let joined;

await step("first sign-in by one-time link", async () => {
  page = await newPage();
  expected = /401|422/;
  await page.goto(CONSOLE + "/");
  await page.getByRole("heading", { name: "Sign in" }).waitFor();
  await look(page, "signin");
  await page.goto(CONSOLE + (await control("/link")));
  await look(page, "welcome");
  assert.equal(await page.inputValue("#name"), "admin");
  await page.fill("#password", "password");
  await page.evaluate(() => document.querySelector("#password").removeAttribute("minlength"));
  await page.getByRole("button", { name: "Set password" }).click();
  await page.getByRole("alert").waitFor();
  await page.fill("#password", password);
  await page.getByRole("button", { name: "Show" }).click();
  assert.equal(await page.getAttribute("#password", "type"), "text");
  await page.getByRole("button", { name: "Set password" }).click();
  await page.getByRole("heading", { name: "Add your first device" }).waitFor();
  await page.locator("#live-state[data-state=on]").waitFor();
  await look(page, "empty");
  expected = /^$/;
});

await step("add a device by keyboard, see it join live, test it", async () => {
  const tabTo = async (name) => {
    for (let i = 0; i < 40; i++) {
      await page.keyboard.press("Tab");
      const here = await page.evaluate(() => document.activeElement.textContent.trim() || document.activeElement.id);
      if (here.startsWith(name)) return;
    }
    assert.fail(`the keyboard does not reach ${name}`);
  };
  await page.setViewportSize(wide);
  await page.goto(CONSOLE + "/devices");
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to the content");
  await page.keyboard.press("Enter");
  await tabTo("Add a device");
  await page.keyboard.press("Enter");
  await page.waitForURL("**/add/device");
  await look(page, "add");
  await tabTo("note");
  await page.keyboard.type("The Pi in the kitchen");
  await tabTo("Options");
  await page.keyboard.press("Space");
  await look(page, "add-options");
  await page.locator("#note").focus();
  await page.keyboard.press("Enter");
  await page.waitForURL("**/join");
  await page.getByText("Waiting for the device").waitFor();
  await look(page, "join");
  const command = await page.locator(".command code").first().textContent();
  assert.match(command, /^curl -fsSLk --pinnedpubkey \S+ https:\/\/weft\.example:8443\/install \| .*sh -s -- weft1[0-9A-Za-z]+$/);
  const token = command.split(" ").pop();
  assert.ok((await page.locator(".qr svg path").getAttribute("d")).length > 1000);

  await page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
  await page.getByRole("button", { name: "Copy" }).click();
  await page.getByRole("button", { name: "Copied" }).waitFor();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), command);

  joined = await control("/join", { token, name: "kitchen-pi-2" });
  const start = Date.now();
  await page.getByText("has joined").waitFor();
  assert.ok(Date.now() - start < 2000, "the page took 2 s to notice");
  await page.getByText("Waiting for its connection").waitFor();
  assert.equal(await page.locator(".qr").count(), 0, "the code of a used token is still shown");
  await control("/online", { id: joined, on: "true" });
  await page.locator(".path").getByText(/^[0-9.]+ ms$/).waitFor();
  await look(page, "joined");
});

await step("add a laptop", async () => {
  await page.setViewportSize(wide);
  await page.goto(CONSOLE + "/add/laptop");
  await page.getByRole("button", { name: "Create a token" }).click();
  await page.getByText("Waiting for the laptop").waitFor();
  await page.getByText("Without installing").click();
  assert.match(await page.locator(".command code").nth(2).textContent(), /^weft up weft1/);
  await look(page, "join-laptop");
  await page.reload(); // the token survives a reload in this session
  await page.getByText("Waiting for the laptop").waitFor();
});

await step("let a laptop in that asks without a token, by keyboard; refuse another", async () => {
  await page.setViewportSize(wide);
  const code = await control("/ask", { name: "Bert\u2019s notebook", from: "127.0.0.1" });
  await page.goto(CONSOLE + "/approve");
  await page.getByText("Waiting").waitFor();
  assert.ok(!(await page.content()).includes(code), "the list shows a code");
  await look(page, "approve");
  await page.getByLabel("Code").fill(code.toLowerCase());
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "Is this your device?" }).waitFor();
  assert.equal(await page.locator("#code-shown").textContent(), code);
  await page.getByText("127.0.0.1").waitFor();
  await page.getByText("Did somebody send you this code").waitFor();
  await look(page, "approve-code");
  await page.getByRole("button", { name: "Let it in" }).click(); // the browser asks for the tick first
  assert.ok(page.url().includes("code="));
  await page.getByLabel("I started this myself just now").focus();
  await page.keyboard.press("Space");
  await page.getByRole("button", { name: "Let it in" }).press("Enter");
  await page.getByText("Let in. It is one of your devices now.").waitFor();
  await page.getByText("berts-notebook").first().waitFor();

  // The link of somebody who is elsewhere.
  const theirs = await control("/ask", { name: '<img src=x onerror=alert(1)>"\'', from: "203.0.113.9" });
  await page.goto(CONSOLE + "/approve?code=" + theirs);
  await page.getByText("The device is not where you are").waitFor();
  await look(page, "approve-away");
  await page.getByRole("button", { name: "Refuse" }).click();
  await page.getByText("Refused. The device is told so.").waitFor();
  expected = /404|409/;
  await page.goto(CONSOLE + "/approve?code=BCDFG-HJKLM");
  await page.getByText("No device shows this code now").waitFor();
  await look(page, "approve-wrong");
  expected = /^$/;
});

await step("devices change under one's eyes, and typing is not disturbed", async () => {
  await control("/sample");
  await page.goto(CONSOLE + "/devices");
  await page.locator("#live-state[data-state=on]").waitFor();
  const row = page.locator(`#d-${joined}`);
  await row.locator(".dot.on").waitFor();
  await control("/online", { id: joined, on: "false" });
  await row.locator(".dot.off").waitFor();
  await look(page, "devices");
  await page.setViewportSize(wide);

  await page.keyboard.press("/");
  await page.keyboard.type("sens");
  await page.waitForFunction(() => document.querySelectorAll(".list tbody tr").length === 3);
  assert.match(page.url(), /q=sens/);
  await page.evaluate(() => (window.sameInput = document.querySelector("#q")));
  await control("/online", { id: joined, on: "true" }); // a live update while typing
  await page.waitForTimeout(300);
  await page.keyboard.type("or");
  await page.waitForFunction(() => location.search === "?q=sensor");
  assert.equal(await page.inputValue("#q"), "sensor");
  assert.ok(await page.evaluate(() => window.sameInput === document.activeElement), "the search field was replaced");
  // The live update must follow the search, not the page as it was loaded.
  await control("/online", { id: joined, on: "false" });
  await page.waitForTimeout(900);
  assert.equal(await page.locator(".list tbody tr").count(), 3);
  await page.keyboard.type(" zzz");
  await page.getByText("Nothing matches").waitFor();
  await look(page, "nothing");
});

await step("a server that hangs: the page says so, greys what it shows, and recovers", async () => {
  await page.setViewportSize(wide);
  await page.goto(CONSOLE + "/devices");
  await page.locator("#live-state[data-state=on]").waitFor();
  const rows = page.locator(".list tbody tr");
  const all = await rows.count();
  expected = /htmx:error/;
  await control("/freeze");
  await page.locator("#q").fill("nas");
  await page.locator("#devices[data-waiting]").waitFor();
  await page.getByText("The server has not answered since").waitFor({ timeout: 20_000 });
  assert.equal(await page.locator("#live-state").textContent(), "No answer");
  const failed = page.locator("#devices > .failed");
  await failed.waitFor({ timeout: 25_000 });
  assert.equal(await rows.count(), all);
  await look(page, "silent");
  await page.setViewportSize(wide);
  await control("/thaw");
  await page.locator("#silent").waitFor({ state: "hidden" });
  await page.locator("#live-state[data-state=on]").waitFor();
  // What was asked for meanwhile is asked for again, without a click.
  await page.waitForFunction(() => document.querySelectorAll(".list tbody tr").length === 1);
  await failed.waitFor({ state: "hidden" });
  await page.locator("#devices:not([data-waiting])").waitFor();
  // A request alone that fails can be tried again.
  expected = /htmx:error|ERR_FAILED/;
  await page.route(/q=green/, (route) => route.abort(), { times: 1 });
  await page.locator("#q").fill("green");
  await failed.getByRole("button", { name: "Try again" }).click();
  await page.locator(".list tbody tr").getByText("greenhouse").waitFor();
  await failed.waitFor({ state: "hidden" });
  // Live again.
  await page.locator("#q").fill("");
  await page.waitForFunction((n) => document.querySelectorAll(".list tbody tr").length === n, all);
  await control("/online", { id: joined, on: "true" });
  await page.locator(`#d-${joined} .dot.on`).waitFor();
  await control("/online", { id: joined, on: "false" });
  await page.locator(`#d-${joined} .dot.off`).waitFor();
  expected = /^$/;
});

await step("what was typed survives a session that ends", async () => {
  expected = /401/;
  for (const how of ["while typing", "before the button"]) {
    await page.goto(`${CONSOLE}/devices/${joined}`);
    await page.locator("#live-state[data-state=on]").waitFor();
    await page.fill("#newname", "half-typed");
    if (how === "while typing") {
      await control("/drop-sessions");
    } else {
      // The page does not hear of it: the stream is gone.
      await page.evaluate(() => document.getElementById("live").remove());
      await control("/drop-sessions");
      await page.getByRole("button", { name: "Rename" }).click();
    }
    await page.getByRole("heading", { name: "Sign in" }).waitFor();
    await page.fill("#name", "admin");
    await page.fill("#password", password);
    await page.getByRole("button", { name: "Sign in", exact: true }).click();
    await page.waitForURL(`**/devices/${joined}`);
    await page.getByText("It is filled in again.").waitFor();
    assert.equal(await page.inputValue("#newname"), "half-typed", how);
    assert.equal(await page.evaluate(() => sessionStorage.getItem("draft")), null);
  }
  expected = /^$/;
});

await step("device page: rename, test, replace, delete with the name typed", async () => {
  await page.setViewportSize(wide);
  await page.goto(CONSOLE + "/devices");
  await page.getByRole("link", { name: "kitchen-pi", exact: true }).click();
  await page.getByRole("button", { name: "Test the connection" }).click();
  await page.locator(".path").getByText(/^[0-9.]+ ms$/).waitFor();
  await look(page, "device");
  await page.setViewportSize(wide);
  await page.fill("#newname", "larder-pi");
  await page.getByRole("button", { name: "Rename" }).click();
  await page.getByRole("heading", { name: "larder-pi" }).waitFor();
  await page.getByText("Renamed.").waitFor();
  expected = /422/;
  await page.fill("#newname", "no spaces here");
  await page.getByRole("button", { name: "Rename" }).click();
  await page.getByText("A name has").waitFor();
  await page.waitForFunction(() => !location.pathname.endsWith("/rename")); // a reload would send the form again
  expected = /^$/;

  const fresh = await control("/add", { name: "larder-pi" });
  await page.goto(CONSOLE + "/devices/" + fresh);
  await page.getByText("Replace another device by this one").click();
  assert.equal(await page.inputValue("#old"), "larder-pi"); // the one that it was named after
  await look(page, "replacing");
  expected = /422/;
  await page.fill("#old", "nobody");
  await page.getByRole("button", { name: "Continue" }).click();
  await page.getByText("No device has this name.").waitFor();
  expected = /^$/;
  await page.fill("#old", "larder-pi");
  await page.getByRole("button", { name: "Continue" }).click();
  await page.getByRole("heading", { name: "Replace larder-pi?" }).waitFor();
  await look(page, "replace");
  await page.getByRole("button", { name: "Replace" }).click();
  await page.getByText("Replaced.").waitFor();
  await page.getByRole("heading", { name: "larder-pi", exact: true }).waitFor();

  await page.getByText("Delete this device").click();
  const button = page.getByRole("button", { name: "Delete" });
  assert.ok(await button.isDisabled());
  await page.fill("#typed", "kitchen-pi");
  assert.ok(await button.isDisabled());
  await page.fill("#typed", "larder-pi");
  await look(page, "delete");
  expected = /404/; // the page may hear of it before it is left
  await button.click();
  await page.waitForURL("**/devices?done=deleted");
  expected = /^$/;
  assert.equal(await page.getByRole("link", { name: "larder-pi" }).count(), 0);
});

await step("keys", async () => {
  await page.setViewportSize(wide);
  await page.goto(CONSOLE + "/keys/new");
  await look(page, "newkey");
  await page.fill("#note", "Golden image, batch 7");
  await page.fill("#tags", "sensor, north-field");
  await page.getByLabel("Reusable").check();
  await page.getByRole("button", { name: "Create the key" }).click();
  await page.getByText("Without installing").click();
  await page.getByText("weft run --token-file").waitFor();
  await look(page, "join-reusable");
  await page.setViewportSize(wide);
  await page.goto(CONSOLE + "/keys");
  await page.getByText("Golden image").waitFor();
  await page.locator("tr", { hasText: "Golden image" }).getByText("Revoke", { exact: true }).click();
  await look(page, "keys");
  const broken = await page.$$eval(".keys .whole, .keys td time", (all) => all.filter((e) => e.getClientRects().length > 1).map((e) => e.textContent));
  assert.deepEqual(broken, [], "words that break over two lines");
  await page.keyboard.press("Escape");
  assert.equal(await page.locator("details.confirm[open]").count(), 0);
  await page.setViewportSize(wide);
  await page.locator("tr", { hasText: "Golden image" }).getByText("Revoke", { exact: true }).click();
  await page.getByRole("button", { name: "Revoke this key" }).click();
  await page.getByText("Key revoked.").waitFor();
  await page.getByText("used, expired or revoked").click();
  await look(page, "keys-past");
});

await step("DNS: records, routes, a live preview", async () => {
  await page.setViewportSize(wide);
  await page.goto(CONSOLE + "/devices");
  await page.getByRole("link", { name: "DNS", exact: true }).click();
  await page.getByRole("heading", { name: "DNS", exact: true }).waitFor();
  await look(page, "dns-empty");
  await page.setViewportSize(wide);
  // By keyboard: the summary opens, the fields follow each other.
  await page.getByText("Add a record").focus();
  await page.keyboard.press("Enter");
  await page.locator("#r-name").focus();
  await page.keyboard.type("www");
  await page.keyboard.press("Tab");
  await page.keyboard.press("Tab");
  await page.keyboard.type("192.0.2.80");
  await page.keyboard.press("Enter");
  await page.getByText("Devices fetch it within seconds").waitFor();
  await page.getByRole("cell", { name: "www.weft.internal", exact: true }).waitFor();
  expected = /422/;
  await page.getByText("Add a record").click();
  await page.fill("#r-name", "www.example.org");
  await page.fill("#r-value", "192.0.2.9");
  await page.getByRole("button", { name: "Add the record" }).click();
  await page.getByRole("alert").filter({ hasText: "is not in weft.internal" }).waitFor();
  assert.equal(await page.inputValue("#r-value"), "192.0.2.9");
  await look(page, "dns-problem");
  await page.setViewportSize(wide);
  expected = /^$/;
  await page.getByText("and that is meant").click();
  await page.getByRole("button", { name: "Add the record" }).click();
  await page.getByRole("cell", { name: "www.example.org", exact: true }).waitFor();
  await page.fill("#suffix", "corp.example");
  await page.fill("#route-servers", "10.0.0.53\ntls://dns.example 192.0.2.3");
  await page.getByRole("button", { name: "Add the route" }).click();
  await page.getByText("tls://dns.example 192.0.2.3").waitFor();
  await page.fill("#servers", "https://dns.example/dns-query 192.0.2.3");
  await page.getByRole("button", { name: "Set nameservers" }).click();
  await page.getByText("Devices fetch it within seconds").waitFor();
  await page.getByText("Stop rebinding").click();
  await page.getByRole("button", { name: "Set options" }).click();
  await page.getByText("Devices fetch it within seconds").waitFor();
  assert.ok(await page.locator("input[name=stop-rebinding]").isChecked());
  // The preview answers while it is typed.
  await page.locator("#p-name").pressSequentially("nas");
  await page.locator("#preview").getByText("is a device").waitFor();
  await page.fill("#p-name", "nobody-here");
  await page.locator("#preview").getByText("There is no such name").waitFor();
  await page.fill("#p-name", "www");
  await page.locator("#preview").getByText("192.0.2.80").waitFor();
  await look(page, "dns");
  await page.setViewportSize(wide);
  await page.getByRole("button", { name: "Remove www.example.org A" }).click();
  await page.getByText("Devices fetch it within seconds").waitFor();
  assert.equal(await page.getByRole("cell", { name: "www.example.org", exact: true }).count(), 0);
  // One device.
  await page.goto(CONSOLE + "/devices?q=nas");
  await page.getByRole("link", { name: "nas" }).click();
  await page.getByText("Answer for every name below its own").click();
  await page.selectOption("#lan-names", "on");
  await page.getByRole("button", { name: "Set", exact: true }).click();
  await page.getByText("Devices fetch it within seconds").waitFor();
  await look(page, "device-names");
});

await step("activity: filter, details, verify, by keyboard", async () => {
  await page.setViewportSize(wide);
  await page.goto(CONSOLE + "/devices");
  await page.getByRole("link", { name: "Activity", exact: true }).click();
  await page.getByRole("heading", { name: "Activity", exact: true }).waitFor();
  await look(page, "activity");
  await page.setViewportSize(wide);
  await page.selectOption("#a-what", "device.");
  await page.locator("#a-device").focus();
  await page.keyboard.type("nas");
  await page.keyboard.press("Enter");
  await page.waitForURL("**/activity?*device=nas*");
  const entry = page.locator(".acts > li").filter({ hasText: "Changed its DNS settings" }).first();
  await entry.locator("summary").focus();
  await page.keyboard.press("Enter");
  await entry.locator("ins").first().waitFor();
  await look(page, "activity-details");
  await page.setViewportSize(wide);
  const download = page.waitForEvent("download");
  await page.getByRole("link", { name: "Export" }).click();
  assert.match((await download).suggestedFilename(), /^weft-audit-.*\.ndjson$/);
  await page.getByRole("button", { name: "Verify the records" }).focus();
  await page.keyboard.press("Enter");
  await page.getByRole("status").filter({ hasText: "are as they were written" }).waitFor();
  await page.waitForFunction(() => location.pathname === "/activity"); // a reload would send the form again
  await look(page, "activity-verified");
  await page.setViewportSize(wide);
  await page.getByRole("link", { name: "Introductions", exact: true }).click();
  await page.getByText("No device has reported anything.").waitFor();
  await page.fill("#i-tag", "sensor");
  await page.getByRole("button", { name: "Have them report" }).click();
  await page.getByText("Devices fetch it within seconds").waitFor();
  await control("/introductions");
  await page.goto(CONSOLE + "/activity/introductions");
  await page.getByText("introduced itself").first().waitFor();
  await look(page, "introductions");
  await page.setViewportSize(wide);
  await page.getByRole("button", { name: "End it for the tag sensor" }).click();
  await page.getByText("None.").waitFor();
});

await step("Access: a question, an edit with a mistake, what it changes, history", async () => {
  await page.setViewportSize(wide);
  await page.goto(CONSOLE + "/devices");
  await page.getByRole("link", { name: "Access", exact: true }).click();
  await page.getByRole("heading", { name: "Access", exact: true }).waitFor();
  await look(page, "access-empty");
  await page.setViewportSize(wide);
  // By keyboard, and without leaving the page.
  await page.locator("#c-from").focus();
  await page.keyboard.type("admin");
  await page.keyboard.press("Tab");
  await page.keyboard.type("nas:22");
  await page.keyboard.press("Enter");
  await page.locator("#answer").getByText("Yes").waitFor();
  await page.fill("#c-from", "nas");
  await page.fill("#c-to", "greenhouse:22");
  await page.getByRole("button", { name: "Ask" }).click();
  await page.locator("#answer").getByText("no rule allows it").waitFor();
  assert.ok(!page.url().includes("from="), "the question left the page");
  // A mistake is told by line, and leads to it.
  await page.fill("#policy", '{\n  "rules": [\n    {"from": ["<img src=x>"], "to": ["*"], "ports": ["*"]},\n  ],\n}');
  await page.getByRole("button", { name: "Check" }).click();
  await page.getByText("1 thing to put right").waitFor();
  assert.ok((await page.locator("#verdict").textContent()).includes('from "<img src=x>"'));
  assert.equal(await page.locator("#verdict img").count(), 0);
  await page.getByRole("button", { name: "Line 3" }).focus();
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id + ":" + document.activeElement.value.slice(document.activeElement.selectionStart).slice(0, 13)), 'policy:"<img src=x>"');
  await look(page, "access-problem");
  await page.setViewportSize(wide);
  // What it changes, before it is saved.
  const text = '// Sensors report to the nas.\n{\n  "rules": [\n    {"from": ["user:*"], "to": ["self"], "ports": ["tcp", "icmp"]},\n    {"from": ["tag:sensor"], "to": ["tag:device", "tag:boat"], "ports": ["tcp:8883"]},\n  ],\n  "tests": [{"src": "greenhouse", "accept": ["nas:8883"], "deny": ["anna-laptop:22"]}],\n}\n';
  await page.fill("#policy", text);
  await page.getByRole("button", { name: "Check" }).click();
  await page.getByText("1 test passed").waitFor();
  await page.locator(".gain").getByText("tcp:8883").first().waitFor();
  await page.locator(".loss").getByText("udp").first().waitFor();
  await page.getByText('no device carries the tag "boat"').waitFor();
  await look(page, "access-check");
  await page.setViewportSize(wide);
  // Somebody else saves first: nothing typed is lost.
  const other = await page.context().newPage();
  await other.goto(CONSOLE + "/access");
  await other.fill("#policy", "{} // theirs\n");
  await other.getByRole("button", { name: "Save" }).click();
  await other.getByText("Saved and in force").waitFor();
  await other.close();
  expected = /409/;
  await page.getByRole("button", { name: "Save" }).click();
  await page.getByText("has changed the policy since you opened it").waitFor();
  assert.equal(await page.inputValue("#policy"), text);
  await look(page, "access-changed");
  await page.setViewportSize(wide);
  expected = /^$/;
  await page.getByRole("button", { name: "Save" }).click();
  await page.getByText("Saved and in force").waitFor();
  await page.getByRole("cell", { name: "tag:sensor" }).first().waitFor();
  await page.getByRole("link", { name: "Show number 1" }).click();
  await page.getByText("This is number 1 of the history").waitFor();
  await look(page, "access-history");
  await page.setViewportSize(wide);
  await page.getByRole("button", { name: "Revert to number 1" }).click();
  await page.getByText("Saved and in force").waitFor();
  assert.equal(await page.inputValue("#policy"), "{} // theirs\n");
});

await step("people: invite, come in by the link, edit, suspend, delete, by keyboard", async () => {
  await page.goto(CONSOLE + "/people");
  await page.getByText("You are alone here").waitFor();
  await look(page, "people-alone");
  await page.getByRole("link", { name: "Invite", exact: true }).focus();
  await page.keyboard.press("Enter");
  await page.getByLabel("User name").fill("ivy");
  await page.getByLabel("Display name").fill("Ivy <img src=x onerror=alert(1)> Björk");
  await look(page, "people-invite");
  await page.getByLabel("User name").focus();
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "Invitation" }).waitFor();
  await page.getByRole("img", { name: "QR code of the invitation" }).waitFor();
  const link = await page.locator(".command code").innerText();
  assert.match(link, /\/welcome\?link=[\w-]{43}$/);
  await look(page, "people-invited");

  // Here somebody else is signed in; in a browser of her own it works, once.
  const here = await page.context().newPage();
  expected = /403|410/;
  await here.goto(link);
  await here.getByRole("heading", { name: "Somebody else is signed in here" }).waitFor();
  await look(here, "people-other");
  await here.close();
  const ivy = await newPage();
  await ivy.goto(link);
  await ivy.getByText("You are invited to this network as").waitFor();
  await look(ivy, "people-welcome");
  await ivy.getByLabel("New password").fill("ivys long password");
  await ivy.keyboard.press("Enter");
  await ivy.waitForURL("**/devices");
  await ivy.goto(link);
  await ivy.getByRole("heading", { name: "This link no longer works" }).waitFor();
  expected = /^$/;

  for (const name of ["family", "garden"]) {
    await page.goto(CONSOLE + "/people/groups");
    await page.getByLabel("Name", { exact: true }).fill(name);
    await page.keyboard.press("Enter");
    await page.getByText("Saved.").waitFor();
  }
  await page.goto(CONSOLE + "/people");
  await page.getByRole("link", { name: "Ivy" }).click();
  await page.getByLabel("Role", { exact: true }).selectOption("operator");
  await page.getByLabel("Only for tags").fill("device sensor");
  await page.getByLabel("Only for tags").press("Enter");
  await page.getByText("Saved. It holds at once.").waitFor();
  await page.getByRole("checkbox", { name: "family" }).check();
  await page.locator("section", { has: page.getByRole("heading", { name: "Groups", exact: true }) }).getByRole("button", { name: "Change" }).click();
  await page.getByText("Saved. It holds at once.").waitFor();
  await look(page, "people-person");
  await page.goto(CONSOLE + "/people/groups");
  await look(page, "people-groups");
  await page.goto(CONSOLE + "/people");
  await look(page, "people");
  await page.getByRole("link", { name: "Ivy" }).click();
  await page.locator("summary", { hasText: "Suspend this user" }).click();
  await page.getByRole("button", { name: "Suspend ivy" }).click();
  await page.getByText("Suspended. All sessions have ended.").waitFor();
  expected = /401/;
  await ivy.goto(CONSOLE + "/devices");
  await ivy.getByRole("button", { name: "Sign in", exact: true }).waitFor();
  expected = /^$/;
  await ivy.context().close();
  await look(page, "people-suspended");
  await page.locator("summary", { hasText: "Delete this user" }).click();
  await page.getByLabel("to confirm").fill("ivy");
  await page.keyboard.press("Enter");
  await page.getByText("Deleted. Nobody gets the name again.").waitFor();
  await page.getByText("You are alone here").waitFor();
});

await step("account, and a session that ends elsewhere", async () => {
  await page.setViewportSize(wide);
  const second = await newPage();
  await second.goto(CONSOLE + "/sign-in");
  await second.fill("#name", "admin");
  await second.fill("#password", password);
  await second.getByRole("button", { name: "Sign in" }).click();
  await second.getByRole("heading", { name: "Devices" }).waitFor();
  await second.locator("#live-state[data-state=on]").waitFor();
  await page.goto(CONSOLE + "/account");
  await look(page, "account");
  expected = /401/;
  await page.getByRole("button", { name: "Sign out everywhere else" }).click();
  await page.getByText("All other sessions have ended").waitFor();
  // The other page notices by itself.
  await second.getByRole("heading", { name: "Sign in" }).waitFor();
  expected = /^$/;
  await second.context().close();
});

// code is what a program for codes shows for a secret, in base32.
async function code(secret) {
  const bits = [...secret].map((c) => "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567".indexOf(c).toString(2).padStart(5, "0")).join("");
  const key = Buffer.from(bits.match(/.{8}/g).map((b) => parseInt(b, 2)));
  const counter = Buffer.alloc(8);
  counter.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 30000)));
  const sum = createHmac("sha1", key).update(counter).digest();
  return String((sum.readUInt32BE(sum[19] & 15) & 0x7fffffff) % 1e6).padStart(6, "0");
}

await step("codes beside the password, and a recovery code", async () => {
  await page.setViewportSize(wide);
  await page.goto(CONSOLE + "/account");
  await page.getByText("Passkeys need a name in DNS").waitFor();
  await page.getByRole("link", { name: "Set up codes" }).click();
  await page.getByRole("heading", { name: "Set up codes" }).waitFor();
  await look(page, "codes-set-up");
  const secret = await page.locator(".command code").textContent();
  await page.fill("#code", "000000");
  expected = /422/;
  await page.keyboard.press("Enter");
  await page.getByText("That is not the code").waitFor();
  expected = /^$/;
  await look(page, "codes-wrong");
  await page.fill("#code", await code(secret));
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "Recovery codes" }).waitFor();
  await look(page, "recovery-codes");
  const recovery = await page.locator(".codes code").allTextContents();
  assert.equal(recovery.length, 10);
  await page.getByRole("link", { name: "I have them" }).click();
  await page.getByText("10 recovery codes left").waitFor();
  await look(page, "account-codes");
  const second = await newPage();
  await second.goto(CONSOLE + "/sign-in");
  await second.fill("#name", "admin");
  await second.fill("#password", password);
  await second.getByRole("button", { name: "Sign in" }).click();
  await second.getByRole("heading", { name: "And a code" }).waitFor();
  await look(second, "sign-in-code");
  await second.fill("#code", recovery[0]);
  await second.keyboard.press("Enter");
  await second.getByRole("heading", { name: "Devices" }).waitFor();
  await second.goto(CONSOLE + "/sign-in/again?next=/account");
  await look(second, "sign-in-again");
  await second.goto(CONSOLE + "/account");
  await second.getByRole("button", { name: "Turn codes off" }).click();
  await second.getByText("Codes are off").waitFor();
  await second.context().close();
});

await step("passkeys", async () => {
  // Signing in with a link ends the session of the first page, whose stream then ends.
  expected = /401/;
  const named = await newPage({ ignoreHTTPSErrors: true });
  const cdp = await named.context().newCDPSession(named);
  await cdp.send("WebAuthn.enable");
  const { authenticatorId } = await cdp.send("WebAuthn.addVirtualAuthenticator", {
    options: { protocol: "ctap2", transport: "internal", hasResidentKey: true, hasUserVerification: true, isUserVerified: true, automaticPresenceSimulation: true },
  });
  await named.goto(NAMED + (await control("/link")));
  await named.fill("#password", password);
  await named.getByRole("button", { name: "Set password and sign in" }).click();
  await named.getByRole("heading", { name: "Devices" }).waitFor();
  await named.goto(NAMED + "/account");
  await look(named, "account-passkeys-none");
  await named.fill("#passkey-name", "<b>the laptop</b>");
  await named.getByRole("button", { name: "Add a passkey" }).click();
  await named.getByText("Passkey added").waitFor();
  await named.getByText("<b>the laptop</b>").waitFor();
  await look(named, "account-passkeys");
  // A second one on the same device is refused by the device.
  await named.getByRole("button", { name: "Add a passkey" }).click();
  await named.getByText("has a passkey for you here already").waitFor();
  // The live stream ends with the session too, and leads to a sign-in page of its own.
  const signOut = async () => {
    await named.getByRole("button", { name: "Sign out" }).click();
    await named.getByRole("heading", { name: "Sign in" }).waitFor();
    await named.waitForLoadState("networkidle");
    await named.goto(NAMED + "/sign-in");
  };
  await signOut();
  await look(named, "sign-in-passkey");
  const button = named.getByRole("button", { name: "Sign in with a passkey" });
  // By keyboard, without a name.
  await button.focus();
  await named.keyboard.press("Enter");
  await named.getByRole("heading", { name: "Devices" }).waitFor();
  // Somebody who is not verified does not get in.
  await named.goto(NAMED + "/account");
  await signOut();
  await cdp.send("WebAuthn.setUserVerified", { authenticatorId, isUserVerified: false });
  await button.click();
  await named.getByText("No passkey was used").waitFor();
  await cdp.send("WebAuthn.setUserVerified", { authenticatorId, isUserVerified: true });
  await button.click();
  await named.getByRole("heading", { name: "Devices" }).waitFor();
  // A copy that has counted less.
  const { credentials } = await cdp.send("WebAuthn.getCredentials", { authenticatorId });
  await cdp.send("WebAuthn.removeCredential", { authenticatorId, credentialId: credentials[0].credentialId });
  await cdp.send("WebAuthn.addCredential", { authenticatorId, credential: { ...credentials[0], signCount: 0 } });
  await named.goto(NAMED + "/account");
  await signOut();
  await button.click();
  await named.getByRole("heading", { name: "Devices" }).waitFor();
  await named.goto(NAMED + "/account");
  await named.getByText("Somebody may have a copy of it").waitFor();
  await look(named, "account-passkey-copied");
  await named.getByRole("button", { name: "Remove" }).click();
  await named.getByText("Passkey removed").waitFor();
  await named.context().close();
  await page.goto(CONSOLE + "/account");
  await page.getByRole("heading", { name: "Sign in" }).waitFor();
  await page.fill("#name", "admin");
  await page.fill("#password", password);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("heading", { name: "Account" }).waitFor();
  expected = /^$/;
});

await step("hostile names do nothing", async () => {
  const payloads = [
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "<svg onload=alert(1)>", "' onmouseover='alert(1)", '" autofocus onfocus="alert(1)',
    "javascript:alert(1)", '" hx-get="//evil.example" hx-trigger="load', '<div hx-get="/devices" hx-trigger="load[alert(1)]">', '<hx-partial hx-target="body">gone</hx-partial>',
    "<iframe srcdoc='<script>alert(1)</script>'>", "<style>body{display:none}</style>", "<base href=//evil.example/>", "</title><script>alert(1)</script>", "<form action=//evil.example>",
    "\u202egnp.exe", "\u2066x\u2069y", "z" + "\u0335".repeat(200), "w".repeat(4000), "line\nbreak", "${alert(1)}{{alert(1)}}",
  ];
  const ids = JSON.parse(await control("/hostile", JSON.stringify(payloads)));
  const stranger = await newPage();
  expected = /401/; // the page of signing in, in place of another
  for (const at of ["/sign-in", "/devices?q=" + encodeURIComponent(payloads[1])]) {
    await stranger.goto(CONSOLE + at);
    assert.equal(await stranger.locator('a[href^="/sign-in/with/"]').count(), payloads.length, at);
    assert.equal(await stranger.locator("iframe, main script, main style, base, main img").count(), 0, at);
    for (const size of [narrow, wide]) {
      await stranger.setViewportSize(size);
      const out = await stranger.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      assert.ok(out <= 0, `${at} at ${size.width} px: ${out} px stick out`);
    }
  }
  await stranger.context().close();
  expected = /^$/;
  for (const at of ["/devices?q=hostile", "/keys", "/account", "/people/waiting", ...ids.map((id) => "/devices/" + id)]) {
    await page.goto(CONSOLE + at);
    await page.locator("#live-state[data-state=on]").waitFor();
    for (const size of [narrow, wide]) {
      await page.setViewportSize(size);
      const out = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      assert.ok(out <= 0, `${at} at ${size.width} px: ${out} px stick out`);
    }
    assert.ok(await page.locator("main h1").isVisible());
    assert.equal(await page.locator("iframe, main script, main style, base, main img").count(), 0, at);
    assert.ok(!/[\u202a-\u202e\u2066-\u2069]/.test(await page.textContent("body")), at);
  }
  await page.goto(CONSOLE + "/devices?q=hostile");
  await look(page, "hostile");
  await page.goto(CONSOLE + "/people/waiting");
  await page.getByText("Approve", { exact: true }).first().click();
  await look(page, "hostile-waiting");
  await page.goto(CONSOLE + "/account");
  await look(page, "hostile-account");
});

await step("5,000 devices", async () => {
  await control("/many");
  await page.setViewportSize(wide);
  const start = Date.now();
  await page.goto(CONSOLE + "/devices?q=unit");
  await page.getByText("1–50 of 5,000 devices").waitFor();
  assert.ok(Date.now() - start < 3000, "the list took 3 s");
  await look(page, "many");
  await page.getByRole("link", { name: "Next" }).click();
  await page.getByText("51–100 of 5,000 devices").waitFor();
});

await step("reading works without JavaScript", async () => {
  const cookies = await page.context().cookies();
  const plain = await newPage({ javaScriptEnabled: false });
  await plain.context().addCookies(cookies);
  for (const [at, heading] of [["/devices", "Devices"], ["/devices?q=nas", "Devices"], ["/keys", "Keys"], ["/access", "Access"], ["/access?from=admin&to=nas:22", "Access"], ["/activity", "Activity"], ["/activity/introductions", "Introductions"], ["/dns", "DNS"], ["/dns?name=nas", "DNS"], ["/account", "Account"], ["/add/device", "Add a device"], ["/keys/new", "New key"]]) {
    await plain.goto(CONSOLE + at);
    assert.ok(await plain.getByRole("heading", { name: heading, exact: true }).isVisible(), at);
  }
  await plain.goto(CONSOLE + "/devices?q=nas");
  await plain.getByRole("link", { name: "nas" }).click();
  await plain.getByRole("heading", { name: "nas" }).waitFor();
  assert.equal(await plain.getByRole("button", { name: "Copy" }).count(), 0, "a button that cannot work is shown");
  await plain.getByRole("button", { name: "Test the connection" }).click();
  await plain.getByText(/^[0-9.]+ ms$/).waitFor();
  await plain.context().close();
});

await step("an ended session and a missing page", async () => {
  await page.setViewportSize(wide);
  expected = /40[14]/;
  await page.goto(CONSOLE + "/no/such/page");
  await page.getByRole("heading", { name: "Nothing here" }).waitFor();
  await look(page, "error");
  await page.goto(CONSOLE + "/keys");
  await page.locator("#live-state[data-state=on]").waitFor();
  await control("/drop-sessions");
  await page.getByRole("heading", { name: "Sign in" }).waitFor();
  await page.fill("#name", "admin");
  await page.fill("#password", password);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.waitForURL("**/keys"); // back where it was
  expected = /^$/;
});

await browser.close();
