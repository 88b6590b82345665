import assert from "node:assert/strict";
import { CONSOLE, wide, control, browser, look, step, expect, run } from "../lib.mjs";

const { page } = run;

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
  expect(/404|409/);
  await page.goto(CONSOLE + "/approve?code=BCDFG-HJKLM");
  await page.getByText("No device shows this code now").waitFor();
  await look(page, "approve-wrong");
  expect();
});
