import assert from "node:assert/strict";
import { CONSOLE, control, look, newPage, step, run } from "../lib.mjs";

const { page } = run;

await step("network: relays, health, backup, addresses", async () => {
  await page.goto(CONSOLE + "/network");
  await page.getByRole("row", { name: "server" }).getByText("Online").waitFor();
  await page.getByText("Never", { exact: true }).waitFor();
  await look(page, "network");
  const far = await control("/relay", { name: "frankfurt" });
  await page.reload();
  await page.getByText("checks passed").click();
  await page.getByRole("heading", { name: "Health" }).waitFor();
  await look(page, "network-relay");
  await page.getByRole("link", { name: "frankfurt" }).focus();
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "frankfurt" }).waitFor();
  await page.getByText("Remove this relay").focus();
  await page.keyboard.press("Enter");
  await look(page, "relay");
  await page.getByLabel("to confirm").focus();
  await page.keyboard.type("frankfurt");
  await page.keyboard.press("Enter");
  await page.getByText("Removed. Devices move to another relay").waitFor();
  assert.equal(await page.getByRole("link", { name: "frankfurt" }).count(), 0);
  assert.ok(far);

  // A member has the keys, and no other page of the section.
  const member = await newPage();
  await member.goto(CONSOLE + await control("/member", { name: "mia" }));
  await member.getByLabel("New password").fill("mias long password");
  await member.keyboard.press("Enter");
  await member.waitForURL("**/devices");
  await member.getByRole("link", { name: "Network", exact: true }).click();
  await member.getByRole("heading", { name: "Keys", exact: true }).waitFor();
  assert.equal(await member.getByRole("link", { name: "Overview" }).count(), 0);
  await look(member, "network-member");
  await member.getByRole("link", { name: "Settings", exact: true }).click();
  await member.getByRole("heading", { name: "This network", exact: true }).waitFor();
  assert.equal(await member.getByRole("link", { name: "Webhooks" }).count(), 0);
  await member.context().close();
});
