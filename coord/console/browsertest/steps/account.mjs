import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { CONSOLE, password, wide, newPage, signInAgain, look, step, expect, run } from "../lib.mjs";

const { page } = run;

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
  expect(/401/);
  await page.getByRole("button", { name: "Sign out everywhere else" }).click();
  await page.getByText("All other sessions have ended").waitFor();
  // The other page notices by itself.
  await second.getByRole("heading", { name: "Sign in" }).waitFor();
  expect();
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
  await signInAgain(page, "/account");
  await page.getByText("Passkeys need a name in DNS").waitFor();
  await page.getByRole("link", { name: "Set up codes" }).click();
  await page.getByRole("heading", { name: "Set up codes" }).waitFor();
  await look(page, "codes-set-up");
  const secret = await page.locator(".command code").textContent();
  await page.fill("#code", "000000");
  expect(/422/);
  await page.keyboard.press("Enter");
  await page.getByText("That is not the code").waitFor();
  expect();
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
