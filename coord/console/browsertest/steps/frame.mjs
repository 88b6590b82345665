import assert from "node:assert/strict";
import { CONSOLE, narrow, wide, household, newPage, look, step, run } from "../lib.mjs";

const { page } = run;
const focused = () => page.evaluate(() => document.activeElement.textContent.trim() || document.activeElement.id);
const paper = () => page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);

await step("sections: at the side from 1024 px on, at the foot below", async () => {
  await household();
  await page.goto(CONSOLE + "/devices");
  for (const [width, side] of [[1024, true], [1023, false], [320, false]]) {
    await page.setViewportSize({ width, height: 700 });
    const dock = await page.locator(".dock").boundingBox();
    const main = await page.locator("main").boundingBox();
    if (side) assert.ok(dock.width === 208 && main.x === 208 && main.width === width - 208, `${width} px: ${JSON.stringify({ dock, main })}`);
    else assert.ok(dock.width === width && Math.round(dock.y + dock.height) === 700 && main.x === 0, `${width} px: ${JSON.stringify({ dock, main })}`);
    assert.equal(await page.getByRole("link", { name: "People", exact: true }).isVisible(), side);
    assert.ok(await page.getByRole("link", { name: "Search" }).isVisible());
  }
  // "More" has what is not at the foot.
  await page.setViewportSize(narrow);
  await page.locator(".me > summary").click();
  await look(page, "more");
  await page.setViewportSize(narrow);
  await page.getByRole("link", { name: "People", exact: true }).click();
  await page.getByRole("heading", { name: "People" }).waitFor();
  await page.setViewportSize(wide);
});

await step("menus by keyboard, and a theme that stays", async () => {
  await page.emulateMedia({ colorScheme: "light" });
  await page.goto(CONSOLE + "/people");
  const menu = page.locator(".me");
  await menu.locator("summary").focus();
  await page.keyboard.press("ArrowDown");
  assert.equal(await focused(), "Your account");
  await page.keyboard.press("ArrowUp");
  await page.keyboard.press("ArrowUp");
  assert.equal(await focused(), "Sign out");
  await page.keyboard.press("Escape");
  assert.equal(await menu.getAttribute("open"), null);
  assert.ok((await focused()).endsWith("More"));
  await page.keyboard.press("Enter");
  await page.keyboard.press("Tab");
  for (let i = 0; i < 4 && (await focused()) !== "Dark"; i++) await page.keyboard.press("Tab");
  const light = await paper();
  await Promise.all([page.waitForNavigation(), page.keyboard.press("Enter")]);
  assert.equal(new URL(page.url()).pathname, "/people");
  const dark = await paper();
  assert.notEqual(dark, light);
  await page.reload();
  assert.equal(await paper(), dark);
  // Also signed out, in this browser.
  const other = await page.context().newPage();
  const cookies = await page.context().cookies();
  await page.context().clearCookies({ name: /^(?!.*-theme$)/ });
  await other.goto(CONSOLE + "/sign-in");
  assert.equal(await other.evaluate(() => getComputedStyle(document.documentElement).backgroundColor), dark);
  await other.close();
  await page.context().addCookies(cookies);
  await page.goto(CONSOLE + "/people");
  await menu.locator("summary").click();
  await Promise.all([page.waitForNavigation(), page.getByRole("button", { name: "Auto" }).click()]);
  assert.equal(await paper(), light);
  // A click elsewhere closes a menu.
  await menu.locator("summary").click();
  await page.getByRole("heading", { name: "People" }).click();
  assert.equal(await menu.getAttribute("open"), null);
});

await step("the palette, by keyboard: to a device, and to an action", async () => {
  let requests = 0;
  page.on("request", (r) => (requests += r.url().includes("/palette")));
  await page.goto(CONSOLE + "/account");
  await page.locator("#live-state[data-state=on]").waitFor();
  assert.equal(requests, 0, "a closed palette asks");
  const field = page.getByRole("combobox", { name: "Search devices, people, pages and actions" });
  const chosen = page.locator("#palette [aria-selected=true]");
  const at = () => page.evaluate(() => document.getElementById(document.getElementById("palette-q").getAttribute("aria-activedescendant"))?.textContent.trim());

  await page.getByRole("link", { name: "Settings", exact: true }).focus();
  await page.keyboard.press("/");
  await chosen.getByText("Devices").waitFor();
  await look(page, "palette");
  assert.ok(await field.evaluate((el) => el === document.activeElement));
  await page.keyboard.press("ArrowDown");
  assert.equal(await at(), "People");
  await page.keyboard.press("ArrowUp");
  await page.keyboard.press("ArrowUp");
  assert.equal(await at(), "Add a laptop");
  await page.keyboard.type("nas");
  await chosen.getByText("nas", { exact: true }).waitFor();
  await look(page, "palette-found");
  await page.keyboard.press("Escape");
  await page.locator("#palette").waitFor({ state: "hidden" });
  assert.equal(await focused(), "Settings", "the focus does not come back");

  // Faster than the answers: Enter goes where the answer to all that was typed leads.
  await page.keyboard.press("Control+k");
  await page.keyboard.type("greenhouse");
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "greenhouse" }).waitFor();

  // An old answer that comes late does not count.
  await page.locator("#live-state[data-state=on]").waitFor();
  let release;
  const held = new Promise((r) => (release = r));
  await page.route(/palette\?q=nas$/, async (route) => {
    await held;
    await route.continue().catch(() => {});
  });
  await page.keyboard.press("Control+k");
  await page.locator("#palette [role=option]").first().waitFor();
  const asked = page.waitForRequest(/palette\?q=nas$/);
  await page.keyboard.type("nas");
  await asked;
  await field.fill("garage");
  await chosen.getByText("garage-door").waitFor();
  release();
  await page.unroute(/palette\?q=nas$/);
  await page.keyboard.press("ArrowUp"); // there is one
  assert.match(await at(), /garage-door/);
  await field.fill("zzz");
  await page.getByText("Nothing matches.").waitFor();
  await look(page, "palette-nothing");
  await field.fill("theme dark");
  await chosen.getByText("Theme: dark").waitFor();
  await Promise.all([page.waitForNavigation(), page.keyboard.press("Enter")]);
  assert.equal(await page.getAttribute("html", "data-theme"), "dark");
  await page.getByRole("heading", { name: "greenhouse" }).waitFor();
  await page.keyboard.press("Control+k");
  await page.keyboard.type("theme auto");
  await Promise.all([page.waitForNavigation(), page.keyboard.press("Enter")]);

  // Where a page has a search field of its own, "/" goes there; the button opens the palette.
  await page.goto(CONSOLE + "/devices");
  await page.keyboard.press("/");
  assert.equal(await page.evaluate(() => document.activeElement.id), "q");
  await page.setViewportSize(narrow);
  await page.getByRole("link", { name: "Search", exact: true }).click();
  await chosen.waitFor();
  await field.fill("invite");
  await page.getByRole("option", { name: "Invite somebody" }).click();
  await page.waitForURL("**/people/invite");
  await page.setViewportSize(wide);

  // Without a script it is a page.
  const plain = await newPage({ javaScriptEnabled: false });
  await plain.context().addCookies(await page.context().cookies());
  await plain.goto(CONSOLE + "/account");
  await plain.getByRole("link", { name: "Search", exact: true }).click();
  await plain.getByRole("searchbox", { name: "Search devices, people, pages and actions" }).fill("nas");
  await plain.keyboard.press("Enter");
  await plain.getByRole("link", { name: "nas", exact: false }).first().click();
  await plain.getByRole("heading", { name: "nas" }).waitFor();
  await plain.goto(CONSOLE + "/palette?q=sign");
  await plain.getByRole("button", { name: "Sign out" }).waitFor();
  await plain.context().close();
  await page.goto(CONSOLE + "/palette?q=s");
  await look(page, "palette-page");
});

await step("every part in every state", async () => {
  await page.goto(CONSOLE + "/style");
  await page.getByRole("heading", { name: "Parts" }).waitFor();
  await look(page, "style");
});
