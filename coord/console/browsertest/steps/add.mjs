import assert from "node:assert/strict";
import { CONSOLE, wide, control, look, step, run } from "../lib.mjs";

const { page } = run;

// tabTo moves on by keyboard until what has the focus is called so.
const tabTo = async (name) => {
  for (let i = 0; i < 60; i++) {
    await page.keyboard.press("Tab");
    const here = await page.evaluate(() => document.activeElement.textContent.trim() || document.activeElement.id);
    if (here.startsWith(name)) return;
  }
  assert.fail(`the keyboard does not reach ${name}`);
};
const now = () => page.locator(".journey [aria-current=step] .step").textContent();
const keyOf = () => new URL(page.url()).pathname.split("/").at(-2); // …/keys/ID/join

await step("add a device by keyboard, see it fetch, join and answer live", async () => {
  await page.setViewportSize(wide);
  await page.goto(CONSOLE + "/add/device");
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to the content");
  await page.keyboard.press("Enter");
  await tabTo("macOS");
  await page.keyboard.press("Enter");
  await page.waitForURL("**/add?for=macos");
  await tabTo("Linux");
  await page.keyboard.press("Enter");
  await page.waitForURL("**/add?for=linux");
  await look(page, "add");
  await tabTo("note");
  await page.keyboard.type("The Pi in the kitchen");
  await tabTo("Options");
  await page.keyboard.press("Space");
  await look(page, "add-options");
  await page.locator("#note").focus();
  await page.keyboard.press("Enter");
  await page.waitForURL("**/join?for=linux");
  await page.getByText("Waiting for the device").waitFor();
  assert.equal(await now(), "Waiting");
  await look(page, "join");
  const code = page.locator(".command code").first();
  const line = await code.textContent();
  assert.match(line, /^curl -fsSLk --pinnedpubkey \S+ https:\/\/weft\.example:8443\/install\/for\/\S+ \| sh -s -- weft1[0-9A-Za-z]+$/);
  assert.ok(line.includes("/for/" + keyOf() + " "));
  const token = line.split(" ").pop();
  assert.ok((await page.locator(".qr svg path").getAttribute("d")).length > 1000);
  // In view it is short. Copied by the button, or selected by hand, it is whole.
  assert.ok((await page.locator(".cut").first().evaluate((el) => el.getBoundingClientRect().width)) < 30, "the middle of the token is in view");
  assert.equal(await code.evaluate((el) => (getSelection().selectAllChildren(el), getSelection().toString())), line);
  await page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
  await page.getByRole("button", { name: "Copy: On the device, in a shell" }).click();
  await page.getByRole("button", { name: "Copied: On the device, in a shell" }).waitFor();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), line);

  await control("/fetch", { key: keyOf() });
  await page.locator(".journey .now").getByText("Downloading").waitFor();
  await page.getByText("from 192.0.2.7").waitFor();
  await look(page, "join-downloading");
  run.joined = await control("/join", { token, name: "kitchen-pi-2" });
  const start = Date.now();
  await page.getByText("has joined").waitFor();
  assert.ok(Date.now() - start < 2000, "the page took 2 s to notice");
  await page.getByText("Waiting for its connection").waitFor();
  assert.equal(await page.locator(".qr").count(), 0, "the code of a used token is still shown");
  await control("/online", { id: run.joined, on: "true" });
  await page.locator(".path").getByText(/^[0-9.]+ ms$/).waitFor();
  await page.locator(".journey .done").getByText(/^in [0-9]+\.[0-9] s$/).waitFor();
  await look(page, "joined");
});

await step("each other choice", async () => {
  for (const [choice, text] of [["windows", "In PowerShell"], ["openwrt", "On the router"], ["container", "Then run the container"], ["image", "On the machine whose disk is copied"], ["laptop", "On Linux or macOS"]]) {
    await page.setViewportSize(wide);
    await page.goto(`${CONSOLE}/add?for=${choice}`);
    if (["image", "laptop"].includes(choice)) await look(page, "add-" + choice);
    await page.getByRole("button", { name: /^Show the/ }).click();
    await page.waitForURL(`**/join?for=${choice}`);
    await page.getByRole("heading", { name: text }).waitFor();
    await look(page, "join-" + choice);
  }
  assert.ok((await page.locator(".command code").allTextContents()).some((c) => /^weft up weft1/.test(c)));
  await page.reload(); // the token survives a reload in this session
  await page.getByText("Waiting for the laptop").waitFor();
});

await step("a device that does not come, and a token that ended", async () => {
  await page.goto(`${CONSOLE}/add?for=linux`);
  await page.getByRole("button", { name: "Show the line" }).click();
  await page.getByText("Waiting for the device").waitFor();
  const at = page.url();
  await control("/age", { key: keyOf(), seconds: "200" });
  await page.goto(at);
  await page.getByText("Nothing has asked this server since the token was made").waitFor();
  await look(page, "join-trouble");
  await control("/age", { key: keyOf(), seconds: "100000" });
  await page.goto(at);
  await page.getByText("This token is expired.").waitFor();
  await look(page, "join-expired");
  await page.getByRole("link", { name: "Make a new one" }).click();
  await page.waitForURL("**/add?for=linux");
});
