import assert from "node:assert/strict";
import { CONSOLE, wide, control, look, step, run } from "../lib.mjs";

const { page } = run;

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

  run.joined = await control("/join", { token, name: "kitchen-pi-2" });
  const start = Date.now();
  await page.getByText("has joined").waitFor();
  assert.ok(Date.now() - start < 2000, "the page took 2 s to notice");
  await page.getByText("Waiting for its connection").waitFor();
  assert.equal(await page.locator(".qr").count(), 0, "the code of a used token is still shown");
  await control("/online", { id: run.joined, on: "true" });
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
