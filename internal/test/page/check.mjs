// Checks the page of package diagnostics in headless Chromium. TestThePageInABrowser starts it.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const { PAGE, GUARDED, TOKEN, REPLAY, PICTURE, SHOTS } = process.env;
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});

// open opens a page, and fails for what it may not do.
async function open(url, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  page.faults = [];
  page.on("console", (m) => m.type() === "error" && !m.text().includes("401") && page.faults.push(m.text()));
  page.on("pageerror", (e) => page.faults.push(String(e)));
  page.on("request", (r) => new URL(r.url()).origin === new URL(url).origin || page.faults.push(`a request to ${r.url()}`));
  await page.goto(url);
  return page;
}

async function close(page) {
  assert.equal(await page.evaluate(() => window.hacked), undefined, "text of a peer ran");
  assert.equal(await page.locator("img, script:not([src])").count(), 0, "text of a peer became an element");
  assert.ok(!/[\u0000-\u0008\u000b-\u001f\u200b-\u200f\u202a-\u202e\u2060-\u206f]/.test(await page.evaluate(() => document.documentElement.outerHTML)), "text of a peer turns others around");
  assert.deepEqual(page.faults, []);
  await page.context().close();
}

// audit runs axe. Its script is run by the debugger, which the page's policy does not bind.
async function audit(page, what) {
  const cdp = await page.context().newCDPSession(page);
  await cdp.send("Runtime.evaluate", { expression: axe });
  const { result } = await cdp.send("Runtime.evaluate", { awaitPromise: true, returnByValue: true,
    expression: "axe.run().then((r) => r.violations.map((v) => v.id + ': ' + v.nodes.slice(0, 3).map((n) => n.html + ' ' + n.failureSummary).join('; ')))" });
  assert.deepEqual(result.value, [], `accessibility of ${what}`);
}

const rows = (page) => page.locator("#sessions tbody tr");
const ready = (page) => rows(page).nth(3).waitFor();

for (const [name, options] of Object.entries({
  light: { colorScheme: "light" },
  dark: { colorScheme: "dark" },
  phone: { colorScheme: "light", viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true },
})) {
  const page = await open(PAGE, options);
  await ready(page);
  await page.waitForTimeout(2500); // rates need two views
  await page.screenshot({ path: `${SHOTS}/${name}.png`, fullPage: name === "phone" });
  await audit(page, name);
  await page.locator("#sessions button.open").first().click();
  await page.locator(".details").first().waitFor();
  await audit(page, `${name}, with a session open`);
  await page.screenshot({ path: `${SHOTS}/${name}-open.png` });
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.ok(wide <= 0, `${name} is ${wide} px too wide`);
  await close(page);
  console.log("ok:", name);
}

{
  const page = await open(PAGE);
  await ready(page);
  assert.equal(await rows(page).count(), 25, "sessions of a page");
  assert.match(await page.locator("#place").textContent(), /^1 to 25 of 10000$/);
  assert.ok((await page.locator("#map g[role=button]").count()) <= 60, "the map is bounded");
  await page.keyboard.press("n");
  await page.waitForFunction(() => document.getElementById("place").textContent.startsWith("26 to 50"));
  await page.keyboard.press("p");
  await page.waitForFunction(() => document.getElementById("place").textContent.startsWith("1 to 25"));
  await page.keyboard.press("/");
  await page.keyboard.type("peer009999");
  await page.waitForFunction(() => document.getElementById("place").textContent === "1 to 1 of 1");
  await page.keyboard.press("Escape");
  await page.locator("#map g[role=button]").first().focus();
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.getElementById("search").value.startsWith("12D3"));
  await page.locator("#search").fill("");
  await page.selectOption("#order", "rtt");
  await page.waitForFunction(() => document.querySelector("#sessions tbody td[data-label='Round trip']").textContent === "202 ms");
  await page.locator("#sessions button.open").first().press("Enter"); // from here on with the keyboard alone
  await page.locator(".details button").first().press("Enter");
  await page.waitForFunction(() => document.querySelector("#explain pre").textContent.includes("<b>connected</b>"));
  await audit(page, "an explanation");
  await page.keyboard.press("Escape");
  await page.waitForFunction(() => !document.getElementById("explain").open);
  await close(page);
  console.log("ok: search, paging, map and keys, with 10,000 sessions");
}

{
  const page = await open(GUARDED);
  await page.locator("#login").waitFor();
  assert.ok(await page.locator("#view").isHidden());
  await audit(page, "the login");
  await page.fill("#token", TOKEN);
  await page.keyboard.press("Enter");
  await ready(page);
  await close(page);
  const linked = await open(`${GUARDED}#token=${TOKEN}`);
  await ready(linked);
  assert.ok(!linked.url().includes(TOKEN), "the token leaves the address");
  await close(linked);
  const pasted = await open(GUARDED);
  await pasted.locator("#login").waitFor();
  await pasted.goto(`${GUARDED}#token=${TOKEN}`); // the page is not loaded again
  await ready(pasted);
  assert.ok(!pasted.url().includes(TOKEN), "the token leaves the address");
  await close(pasted);
  console.log("ok: token");
}

for (const colorScheme of process.env.DRAW ? ["light", "dark"] : []) { // for docs/DIAGNOSTICS.md
  const page = await open(PICTURE, { colorScheme, viewport: { width: 1280, height: 1010 } });
  await ready(page);
  await page.waitForTimeout(20_000); // lines of the rates
  await page.screenshot({ path: `${SHOTS}/picture-${colorScheme}.png` });
  await close(page);
}

{
  const page = await open(REPLAY);
  await ready(page);
  const cdp = await page.context().newCDPSession(page);
  await cdp.send("Performance.enable");
  const up = (seconds) => page.waitForFunction((least) => {
    const text = [...document.querySelectorAll("#summary div")].find((d) => d.firstChild.textContent === "Up for")?.lastChild.textContent ?? "";
    const [, h, min, s] = text.match(/^(?:(\d+) h )?(?:(\d+) min ?)?(?:(\d+) s)?/);
    return (h ?? 0) * 3600 + (min ?? 0) * 60 + Number(s ?? 0) >= least;
  }, seconds, { timeout: 150_000 });
  const size = async () => { // the least of several looks: what was dropped is not collected at once
    const least = { heap: Infinity, nodes: Infinity, listeners: Infinity };
    for (let i = 0; i < 10; i++) {
      await cdp.send("HeapProfiler.collectGarbage");
      const all = Object.fromEntries((await cdp.send("Performance.getMetrics")).metrics.map((m) => [m.name, m.value]));
      least.heap = Math.min(least.heap, all.JSHeapUsedSize);
      least.nodes = Math.min(least.nodes, all.Nodes);
      least.listeners = Math.min(least.listeners, all.JSEventListeners);
      await page.waitForTimeout(200);
    }
    return least;
  };
  await up(600);
  const before = await size();
  await up(3600);
  const after = await size();
  console.log("after 600 and 3600 snapshots:", JSON.stringify(before), JSON.stringify(after));
  for (const key of Object.keys(before)) assert.ok(after[key] <= before[key] * 1.1 + 500, `${key} grew from ${before[key]} to ${after[key]}`);
  await close(page);
  console.log("ok: an hour of snapshots");
}
await browser.close();
