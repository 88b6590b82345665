import assert from "node:assert/strict";
import { CONSOLE, wide, control, household, look, step, expect, run } from "../lib.mjs";

const { page } = run;


const text = '// Sensors report to the nas.\n{\n  "rules": [\n    {"from": ["user:*"], "to": ["self"], "ports": ["tcp", "icmp"]},\n    {"from": ["tag:sensor", "user:ghost"], "to": ["tag:device", "tag:boat"], "ports": ["tcp:8883"], "aes": true},\n    {"from": ["group:family"], "to": ["tag:device"], "ports": ["tcp:443"]},\n  ],\n  "tagOwners": {"tag:sensor": ["group:family", "role:operator"]},\n  "tests": [{"src": "greenhouse", "accept": ["nas:8883"], "deny": ["anna-laptop:22"]}],\n}\n';

await step("Access: a question, and an edit with a mistake, by keyboard", async () => {
  await household();
  await control("/family");
  await page.setViewportSize(wide);
  await page.goto(CONSOLE + "/devices");
  await page.getByRole("link", { name: "Access", exact: true }).click();
  await page.getByRole("heading", { name: "Access", exact: true }).waitFor();
  await look(page, "access-empty");
  // Without leaving the page.
  await page.locator("#c-from").focus();
  await page.keyboard.type("admin");
  await page.keyboard.press("Tab");
  await page.keyboard.type("nas:22");
  await page.keyboard.press("Enter");
  await page.locator("#answer").getByText("Yes").waitFor();
  await page.locator("#answer").getByRole("link", { name: "Rule 1 in the table" }).waitFor();
  await look(page, "access-yes");
  await page.fill("#c-from", "nas");
  await page.fill("#c-to", "greenhouse:22");
  await page.getByRole("button", { name: "Ask" }).click();
  await page.locator("#answer").getByText("no rule allows it").waitFor();
  assert.ok(!page.url().includes("from="), "the question left the page");
  for (const tab of ["Tests", "Tags and groups", "History"]) {
    await page.getByRole("navigation", { name: "Access" }).getByRole("link", { name: tab }).click();
    await page.locator(".tabs [aria-current]").getByText(tab).waitFor();
    await look(page, "access-empty-" + tab.toLowerCase().replaceAll(" ", "-"));
  }
  // From a rule to its line of the text.
  await page.goto(CONSOLE + "/access");
  await page.getByRole("link", { name: "Rule 1 in the text" }).focus();
  await page.keyboard.press("Enter");
  await page.waitForURL("**/access/policy?line=*");
  assert.match(await page.evaluate(() => document.activeElement.value.slice(document.activeElement.selectionStart, document.activeElement.selectionEnd)), /"user:\*"/);
  // A mistake is told by line, and leads to it.
  await page.keyboard.press("Control+A");
  await page.keyboard.insertText('{\n  "rules": [\n    {"from": ["<img src=x>"], "to": ["*"], "ports": ["*"]},\n  ],\n}');
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Check");
  await page.keyboard.press("Enter");
  await page.getByText("1 thing to put right").waitFor();
  assert.ok((await page.locator("#verdict").textContent()).includes('from "<img src=x>"'));
  assert.equal(await page.locator("#verdict img").count(), 0);
  await page.getByRole("button", { name: /^Line 3 ?, column/ }).focus();
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id + ":" + document.activeElement.value.slice(document.activeElement.selectionStart).slice(0, 13)), 'policy:"<img src=x>"');
  await look(page, "access-problem");
});

await step("Access: what an edit changes, somebody else who saves first, history", async () => {
  await page.fill("#policy", text);
  assert.equal((await page.locator(".lines").textContent()).split("\n").length, text.split("\n").length);
  await page.getByRole("button", { name: "Check" }).click();
  await page.getByText("2 tests passed").or(page.getByText("1 test passed")).waitFor();
  await page.locator(".gain").getByText("tcp:8883").first().waitFor();
  await page.locator(".loss").getByText("udp").first().waitFor();
  await page.getByText('no device carries the tag "boat"').waitFor();
  await look(page, "access-check");
  // Somebody else saves first: nothing typed is lost.
  const other = await page.context().newPage();
  await other.goto(CONSOLE + "/access/policy");
  await other.fill("#policy", "{} // theirs\n");
  await other.getByRole("button", { name: "Save" }).click();
  await other.getByText("Saved and in force").waitFor();
  await other.close();
  expect(/409/);
  await page.getByRole("button", { name: "Save" }).click();
  await page.getByText("has changed the policy since you opened it").waitFor();
  assert.equal(await page.inputValue("#policy"), text);
  await look(page, "access-changed");
  expect();
  await page.getByRole("button", { name: "Save" }).click();
  await page.getByText("Saved and in force").waitFor();
  await page.locator(".rules").getByText("not there").first().waitFor();
  await page.locator(".rules summary").filter({ hasText: "family" }).focus();
  await page.keyboard.press("Enter");
  await page.locator(".rules .word[open]").getByText("ben").waitFor();
  await look(page, "access-rules");
  await page.goto(CONSOLE + "/access/tests");
  await page.getByText("All 2 hold").waitFor();
  await look(page, "access-tests");
  await page.goto(CONSOLE + "/access/tags");
  await page.getByText("owners, admins, ").first().waitFor();
  await look(page, "access-tags");
  await page.goto(CONSOLE + "/access/history");
  await page.getByRole("link", { name: "Changes of number 2" }).click();
  await page.locator(".difflines .add").first().waitFor();
  await look(page, "access-history");
  await page.getByRole("link", { name: "Text of number 1" }).click();
  await page.getByText("This is number 1 of the history").waitFor();
  await look(page, "access-former");
  await page.goto(CONSOLE + "/access/history");
  await page.getByRole("button", { name: "Revert to number 1" }).focus();
  await page.keyboard.press("Enter");
  await page.getByText("Saved and in force").waitFor();
  await page.goto(CONSOLE + "/access/policy");
  assert.equal(await page.inputValue("#policy"), "{} // theirs\n");
});

await step("Access: 200 rules", async () => {
  const rules = Array.from({ length: 200 }, (_, i) => `    {"from": ["user:somebody-with-a-long-name-${i}", "group:family"], "to": ["tag:site-${i}"], "ports": ["tcp:${1000 + i}", "udp:53", "icmp"]},`);
  await page.goto(CONSOLE + "/access/policy");
  await page.fill("#policy", `{"rules": [\n    {"from": ["user:*"], "to": ["self"], "ports": ["*"]},\n${rules.join("\n")}\n]}`);
  await page.getByRole("button", { name: "Save" }).click();
  await page.getByText("Saved and in force").waitFor();
  await page.getByText("201 rules").waitFor();
  await look(page, "access-200");
  await page.fill("#rules-q", "tag:site-150");
  await page.keyboard.press("Enter");
  await page.getByText("1 of 201 rules").waitFor();
  await page.goto(CONSOLE + "/access/policy");
  await page.fill("#policy", "{} // theirs\n");
  await page.getByRole("button", { name: "Save" }).click();
  await page.getByText("Saved and in force").waitFor();
});
