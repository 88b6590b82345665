import assert from "node:assert/strict";
import { CONSOLE, wide, control, newPage, step, expect, run } from "../lib.mjs";

const { page } = run;
const inView = () => page.evaluate(() => document.elementFromPoint(innerWidth / 2, innerHeight / 2)?.closest("#rows > tr")?.id);

await step("back from a device to the list: filter, order and place are the same", async () => {
  await control("/fleet", { n: 300, name: "return" });
  await page.setViewportSize(wide);
  await page.goto(CONSOLE + "/devices?q=return");
  await page.getByRole("link", { name: /^Name/ }).click();
  await page.waitForURL("**sort=-name");
  await page.locator("#live-state[data-state=on]").waitFor();
  await page.locator("#rows input[name=id]").first().click();
  await page.getByText("1 selected").waitFor();
  await page.evaluate(() => scrollTo(0, 6000));
  await page.waitForFunction(() => document.elementFromPoint(innerWidth / 2, innerHeight / 2)?.closest("#rows > tr"));
  const [url, at, row] = [page.url(), await page.evaluate(() => scrollY), await inView()];
  await page.locator(`#${row} .lead a`).click();
  await page.waitForURL("**/devices/" + row.slice(2));
  await page.goBack();
  await page.waitForFunction((row) => document.elementFromPoint(innerWidth / 2, innerHeight / 2)?.closest("#rows > tr")?.id === row, row);
  assert.equal(page.url(), url);
  assert.equal(await page.inputValue("#q"), "return");
  assert.equal(await page.locator("th[aria-sort=descending]").textContent(), "Name");
  assert.equal(await page.evaluate(() => scrollY), at);
  // What was selected is gone, bar and ticks alike.
  assert.ok(await page.locator("#bar").isHidden());
  assert.equal(await page.locator("#rows input:checked").count(), 0);
});

await step("neither back nor reload sends a form again", async () => {
  const id = await control("/add", { name: "sent-once" });
  await page.goto(`${CONSOLE}/devices/${id}/settings`);
  await page.fill("#newname", "sent-twice");
  await page.getByRole("button", { name: "Rename" }).click();
  await page.getByText("Renamed to sent-twice.").waitFor();
  const sent = [];
  const note = (r) => r.method() === "POST" && !r.url().endsWith("/test") && sent.push(r.url());
  page.on("request", note);
  await page.reload();
  await page.goBack();
  await page.goForward();
  await page.getByRole("heading", { name: "sent-twice", exact: true }).waitFor();
  page.off("request", note);
  assert.deepEqual(sent, []);
});

await step("a page that the browser kept shows nothing once one has signed out", async () => {
  const mine = await newPage({ storageState: await page.context().storageState() });
  await mine.goto(CONSOLE + "/devices?q=return");
  await mine.getByRole("link", { name: "return-0001" }).waitFor();
  // It is shown again as it was kept: the session is over, and it has not heard of that.
  await mine.evaluate(() => document.getElementById("live").remove());
  await mine.context().clearCookies();
  expect(/401/);
  await mine.evaluate(() => dispatchEvent(new PageTransitionEvent("pageshow", { persisted: true })));
  await mine.getByRole("heading", { name: "Sign in" }).waitFor();
  assert.equal(await mine.getByText("return-0001").count(), 0);
  expect();
  await mine.context().close();
});
