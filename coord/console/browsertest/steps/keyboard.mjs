import assert from "node:assert/strict";
import { CONSOLE, wide, signInAgain, tabTo, step, run } from "../lib.mjs";

const { page } = run;

await step("by keyboard alone: invite somebody", async () => {
  await page.setViewportSize(wide);
  await signInAgain(page, "/people");
  await tabTo(page, 'main a[href="/people/invite"]');
  await page.keyboard.press("Enter");
  await page.waitForURL("**/people/invite");
  await tabTo(page, "main input[name=name]");
  await page.keyboard.type("keys-only");
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "Invitation" }).waitFor();
  await tabTo(page, "main button[data-copy]");
});

await step("by keyboard alone: edit the policy", async () => {
  await page.goto(CONSOLE + "/access/policy");
  const was = await page.inputValue("#policy");
  for (const text of [`${was}// by keyboard\n`, was]) {
    await page.goto(CONSOLE + "/access/policy");
    await tabTo(page, "#policy");
    await page.keyboard.press("ControlOrMeta+a");
    await page.keyboard.insertText(text);
    for (let i = 0; i < 10 && (await page.evaluate(() => document.activeElement.textContent.trim())) !== "Save"; i++) await page.keyboard.press("Tab");
    await page.keyboard.press("Enter");
    await page.getByText("Saved and in force").waitFor();
  }
  await page.goto(CONSOLE + "/access/policy");
  assert.equal(await page.inputValue("#policy"), was);
});
