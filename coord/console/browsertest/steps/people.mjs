import assert from "node:assert/strict";
import { CONSOLE, password, browser, newPage, signInAgain, look, step, expect, run } from "../lib.mjs";

const { page } = run;

await step("people: invite, come in by the link, edit, suspend, delete, by keyboard", async () => {
  await signInAgain(page, "/people");
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
  // The server of this test is on 127.0.0.1; where it has a name there is a QR code (passkeys).
  await page.getByText("This link works on this machine only").waitFor();
  const link = await page.locator(".command code").first().innerText();
  assert.match(link, /\/welcome\?link=[\w-]{43}$/);
  await look(page, "people-invited");

  // Here somebody else is signed in; in a browser of her own it works, once.
  const here = await page.context().newPage();
  expect(/403|410/);
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
  expect();

  for (const name of ["household", "garden"]) {
    await page.goto(CONSOLE + "/people/groups");
    await page.getByLabel("Name of a new group").fill(name);
    await page.keyboard.press("Enter");
    await page.getByText("Saved.").waitFor();
  }
  await page.goto(CONSOLE + "/people");
  await page.getByRole("link", { name: "Ivy" }).click();
  await page.getByLabel("Role", { exact: true }).selectOption("operator");
  await page.getByLabel("Only for tags").fill("device sensor");
  await page.getByLabel("Only for tags").press("Enter");
  await page.getByText("Saved. It holds at once.").waitFor();
  await page.getByRole("checkbox", { name: "household" }).check();
  await page.locator("section", { has: page.getByRole("heading", { name: "Groups", exact: true }) }).getByRole("button", { name: "Change" }).click();
  await page.getByText("Saved. It holds at once.").waitFor();
  await look(page, "people-person");
  await page.goto(CONSOLE + "/people/groups");
  await look(page, "people-groups");
  await page.locator("summary", { hasText: "Delete" }).first().click();
  await page.getByRole("button", { name: "Delete this group" }).first().waitFor();
  await look(page, "people-groups-delete");
  await page.goto(CONSOLE + "/people/waiting");
  await look(page, "people-waiting-none");
  await page.goto(CONSOLE + "/people");
  await look(page, "people");
  await page.getByRole("link", { name: "Ivy" }).click();
  await page.locator("summary", { hasText: "Suspend this user" }).click();
  await page.getByRole("button", { name: "Suspend ivy" }).click();
  await page.getByText("Suspended. All sessions have ended.").waitFor();
  expect(/401/);
  await ivy.goto(CONSOLE + "/devices");
  await ivy.getByRole("button", { name: "Sign in", exact: true }).waitFor();
  expect();
  await ivy.context().close();
  await look(page, "people-suspended");
  await page.locator("summary", { hasText: "Delete this user" }).click();
  await page.getByLabel("to confirm").fill("ivy");
  await page.keyboard.press("Enter");
  await page.getByText("Deleted. Nobody gets the name again.").waitFor();
  await page.getByText("You are alone here").waitFor();
});
