// The line of round trips on a device's page: one more every few seconds while somebody
// sees it, and for five minutes at most, since each one wakes the device.

const sampleEvery = 5_000;
const samplesAtOnce = 60;
let samples = 0;

function sample() {
  const form = document.getElementById("latency-form");
  if (!form || document.hidden || "old" in document.body.dataset || form.matches(".htmx-request")) return;
  form.querySelector("[data-paused]").hidden = samples < samplesAtOnce;
  if (samples >= samplesAtOnce) return;
  samples++;
  htmx.trigger(form, "sample");
}

addEventListener("load", sample);
setInterval(sample, sampleEvery);
document.addEventListener("visibilitychange", () => {
  samples = 0;
  sample();
});
document.addEventListener("submit", (e) => {
  if (e.target.id === "latency-form") samples = 0;
});
// What was refused is not asked for again by itself.
document.addEventListener("htmx:response:error", (e) => {
  if (e.detail?.ctx?.sourceElement?.id === "latency-form") samples = samplesAtOnce;
});
