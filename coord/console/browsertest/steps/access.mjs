import assert from "node:assert/strict";
import { CONSOLE, wide, look, step, expect, run } from "../lib.mjs";

const { page } = run;

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
  expect(/409/);
  await page.getByRole("button", { name: "Save" }).click();
  await page.getByText("has changed the policy since you opened it").waitFor();
  assert.equal(await page.inputValue("#policy"), text);
  await look(page, "access-changed");
  await page.setViewportSize(wide);
  expect();
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
