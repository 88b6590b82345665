// Drives the console in Chromium; started by browser_test.go with CONSOLE (the
// site), CONTROL (what devices and the command line would do), WEFT_CHROMIUM
// and, for screenshots, WEFT_SHOTS. The first failure ends it with status 1.
//
// The steps build on one another, in this order. STEPS=people,dns runs only these, after
// the first two.
import { browser } from "./lib.mjs";

const steps = ["first", "add", "approve", "live", "devices", "device", "keys", "dns", "people", "network", "settings", "activity", "access", "frame", "tabs", "slow", "back", "keyboard", "account", "passkeys", "hostile", "many", "numbers", "plain", "ended"];
const only = process.env.STEPS?.split(",");
for (const s of steps) {
  if (!only || s === "first" || s === "add" || only.includes(s)) await import(`./steps/${s}.mjs`);
}
await browser.close();
