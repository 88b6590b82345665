import { chromium } from "playwright-core";
const { CONSOLE, CONTROL, SHOTS } = process.env;
const ctl = async (p, body) => (await fetch(CONTROL + p, { method: "POST", body: body && new URLSearchParams(body) })).text();
const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync".split(" ") });
const combos = [[1280, "light"], [390, "light"], [1280, "dark"], [390, "dark"]];
const ctx = await browser.newContext({ viewport: { width: 1280, height: 860 } });
const page = await ctx.newPage();
page.on("console", (m) => console.log("console:", m.type(), m.text()));
page.on("pageerror", (e) => console.log("pageerror:", e));
async function shot(name, only) {
  for (const [w, scheme] of combos) {
    if (only && !only.includes(scheme + w)) continue;
    await page.emulateMedia({ colorScheme: scheme });
    await page.setViewportSize({ width: w, height: w == 390 ? 844 : 860 });
    await page.waitForTimeout(60);
    await page.screenshot({ path: `${SHOTS}/${name}-${w}-${scheme}.png`, fullPage: true });
    const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    if (over > 0) console.log("OVERFLOW", name, w, over);
  }
  await page.setViewportSize({ width: 1280, height: 860 });
}
const link = await ctl("/link");
await page.goto(CONSOLE + "/sign-in"); await shot("signin");
await page.goto(CONSOLE + link); await shot("welcome");
await page.fill("#password", "correct horse battery"); await page.click("text=Set password");
await page.waitForSelector(".empty"); await shot("empty");
await page.click("text=Add a device"); await page.waitForSelector("#note"); await shot("add");
await page.click("summary"); await shot("add-open");
await page.fill("#note", "The Pi in the kitchen"); await page.click("text=Create a token");
await page.waitForSelector(".joined"); await shot("join");
const token = (await page.textContent(".command code")).split(" ").pop();
const id = await ctl("/join", { token, name: "kitchen-pi-2" });
await page.waitForSelector(".arrived"); await shot("joined-wait");
await ctl("/online", { id, on: "true" });
await page.waitForSelector(".path"); await shot("joined");
await page.goto(CONSOLE + "/add/laptop"); await page.click("text=Create a token"); await page.waitForSelector(".joined"); await shot("join-laptop");
await ctl("/sample");
await page.goto(CONSOLE + "/devices"); await page.waitForTimeout(300); await shot("devices");
await page.fill("#q", "sensor zzz"); await page.waitForSelector(".none"); await shot("none", ["light1280", "dark390"]);
await page.goto(CONSOLE + "/devices"); await page.click("text=kitchen-pi >> nth=0"); await page.waitForSelector("#h-reach");
await page.click("text=Test the connection"); await page.waitForSelector(".path"); await shot("device");
await page.click("text=Delete this device"); await page.fill("#typed", "nope"); await shot("delete", ["light390", "dark1280"]);
await page.goto(CONSOLE + "/keys"); await shot("keys");
await page.click("details.confirm summary"); await shot("keys-revoke", ["light1280", "light390"]);
await page.goto(CONSOLE + "/keys/new"); await shot("newkey", ["light1280", "dark390"]);
await page.goto(CONSOLE + "/account"); await shot("account");
await page.goto(CONSOLE + "/nothing"); await shot("error", ["light1280", "dark390"]);
await browser.close();
