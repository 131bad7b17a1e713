// Uses the dashboard with a real browser, as people do.
//
// dashboard.mjs PART BASE TOKEN_FILE ...: BASE is the admin listener, such as http://127.0.0.1:9901. Prints one line for
// each thing that works.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const [part, base, tokenFile, ...more] = process.argv.slice(2);
const token = readFileSync(tokenFile, "utf8").trim();
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** The longest that something may take on a busy machine. Unit: ms. */
const PATIENCE = 60_000;

function must(holds, what, ...more) {
  if (!holds) throw new Error(`${what}: ${more.map((one) => JSON.stringify(one)).join(" ")}`);
  console.log(`ok ${what}`);
}

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-dev-shm-usage", "--force-color-profile=srgb", "--hide-scrollbars"],
});

/** What browsers of this run complained about. */
const complaints = [];

async function open(colorScheme = "light") {
  const context = await browser.newContext({
    viewport: { width: 1280, height: 800 },
    colorScheme,
    reducedMotion: "reduce",
    // A script that is put into the page from outside, such as axe, is not the page's own doing.
    bypassCSP: part === "look" || part === "fleet",
  });
  context.setDefaultTimeout(PATIENCE);
  const page = await context.newPage();
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("console", (message) => {
    // An answer that says no is told by the page itself.
    if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) complaints.push(message.text());
  });
  return page;
}

async function signIn(page) {
  await page.goto(`${base}/ui/`);
  await page.getByLabel("Token").fill(token);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("heading", { level: 1, name: "Overview" }).waitFor();
}

/** Goes to a place of the page, and waits until what it has asked for is there. */
async function visit(page, path) {
  await page.goto(`${base}/ui/#/${path}`);
  await page.locator("main h1").first().waitFor();
  await page.waitForFunction(() => document.querySelector("main [aria-busy]") === null);
}

/** Violations that keep people out. */
async function barriers(page) {
  await page.evaluate(axe);
  const found = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  return found.violations
    .filter((one) => one.impact === "serious" || one.impact === "critical")
    .map((one) => `${one.id}: ${one.nodes.map((node) => `${node.html} ${node.failureSummary}`).slice(0, 3).join(" | ")}`);
}

const parts = { look, change, door, fleet, provider };

/** Finds what fails within three clicks, then looks at every page in both themes. */
async function look(failing, shots) {
  const page = await open();
  await signIn(page);
  let clicks = 0;
  const finding = page.locator("section", { has: page.getByRole("heading", { name: "What is wrong now" }) });
  const wrong = finding.getByRole("link", { name: failing }).first();
  await wrong.waitFor();
  await wrong.click();
  clicks += 1;
  await page.getByRole("heading", { level: 1, name: failing }).waitFor();
  const endpoints = page.getByRole("region", { name: "Endpoints" });
  await endpoints.getByText(/^(ejected|probing|failing check)$/).first().waitFor();
  must(clicks <= 3, "a failing service is found within three clicks", clicks);
  must(page.url().includes(encodeURIComponent(failing)), "what is seen has an address of its own", page.url());

  const routes = await page.evaluate(() => fetch("../api/v1/routes").then((answer) => answer.json()));
  const route = routes.items.find((one) => one.policies.length > 2) ?? routes.items[0];
  const pages = [
    ["overview", ""],
    ["topology", "topology"],
    ["routes", "routes"],
    ["route", `routes/${encodeURIComponent(route.id)}`, tryIt],
    ["try", `routes/${encodeURIComponent(route.id)}`, sendIt],
    ["services", "services"],
    ["service", `services/${encodeURIComponent(failing)}`],
    ["tap", "tap", watch],
    ["trace", "tap/trace", watch],
    ["consumers", "consumers"],
    ["apis", "apis"],
    ["certificates", "certificates"],
    ["configuration", "configuration", firstDocument],
    ["access", "access"],
    ["proxies", "proxies"],
  ];
  const kept = [];
  for (const theme of ["light", "dark"]) {
    const one = theme === "light" ? page : await open(theme);
    if (theme === "dark") await signIn(one);
    for (const [name, path, act] of pages) {
      await visit(one, path);
      await act?.(one);
      await one.waitForTimeout(300);
      if (shots) await one.screenshot({ path: `${shots}/${name}-${theme}.png` });
      kept.push(...(await barriers(one)).map((found) => `${name}, ${theme}: ${found}`));
    }
  }
  must(kept.length === 0, "no page keeps anybody out", ...kept);
  await keyboard(page);
}

/** Finds what fails in a mesh at its control plane, within three clicks, and looks at what it knows of its proxies. */
async function fleet(failing, caller, shots) {
  const page = await open();
  await signIn(page);
  let clicks = 0;
  const finding = page.locator("section", { has: page.getByRole("heading", { name: "What is wrong now" }) });
  const wrong = finding.getByRole("link", { name: failing }).first();
  await wrong.waitFor();
  await wrong.click();
  clicks += 1;
  await page.getByRole("heading", { level: 1, name: failing }).waitFor();
  const callers = page.getByRole("region", { name: "Who calls it" });
  await callers.getByText(caller).first().waitFor();
  must(clicks <= 3, "a failing service of the mesh is found within three clicks", clicks);
  const kept = [];
  for (const theme of ["light", "dark"]) {
    const one = theme === "light" ? page : await open(theme);
    if (theme === "dark") await signIn(one);
    for (const [name, path] of [
      ["fleet-overview", ""],
      ["fleet-topology", "topology"],
      ["fleet-services", "services"],
      ["fleet-service", `services/${encodeURIComponent(failing)}`],
      ["fleet-proxies", "proxies"],
      ["fleet-certificates", "certificates"],
    ]) {
      await visit(one, path);
      await one.waitForTimeout(300);
      if (shots && PICTURED.includes(name)) await one.screenshot({ path: `${shots}/${name}-${theme}.png` });
      kept.push(...(await barriers(one)).map((found) => `${name}, ${theme}: ${found}`));
    }
  }
  must(kept.length === 0, "no page keeps anybody out", ...kept);
  await visit(page, "proxies");
  await page.getByText("ends in").first().waitFor();
  must(complaints.length === 0, "nothing is complained about", ...complaints);
}

/** Pages of a mesh that the manual shows. */
const PICTURED = ["fleet-overview", "fleet-topology", "fleet-service", "fleet-proxies"];

async function tryIt(page) {
  await page.getByRole("button", { name: "Explain" }).click();
  await page.getByText("chosen").first().waitFor();
  await page.locator("#try").scrollIntoViewIfNeeded();
}

async function sendIt(page) {
  await page.getByRole("button", { name: "Send it" }).click();
  const answer = page.getByRole("region", { name: "Answer" });
  await answer.getByText("routed").first().waitFor();
  await page.locator("#try").evaluate((card) => card.scrollIntoView());
}

async function watch(page) {
  await page.getByRole("button", { name: "Start" }).click();
  await page.locator("main tbody tr, main .steps li, main [role=alert], main .empty").first().waitFor();
  // A page that changes all the time is not what is looked at next.
  const stop = page.getByRole("button", { name: "Stop" });
  if (await stop.isVisible()) await stop.click({ timeout: 2_000 }).catch(() => {});
}

async function firstDocument(page) {
  await page.getByRole("navigation", { name: "Documents" }).getByRole("link").first().click();
  await page.locator("pre.text").first().waitFor();
}

/** Everything can be reached without a mouse. */
async function keyboard(page) {
  await visit(page, "");
  await page.locator("body").press("/");
  const search = page.getByRole("combobox");
  await search.waitFor();
  await search.fill("certif");
  await search.press("Enter");
  await page.getByRole("heading", { level: 1, name: "Certificates" }).waitFor();
  must(await page.evaluate(() => document.activeElement?.id === "main"), "the keyboard goes on in the page that was found");
  await page.goto(`${base}/ui/`);
  await page.getByRole("heading", { level: 1, name: "Overview" }).waitFor();
  await page.evaluate(() => document.activeElement?.blur?.());
  await page.keyboard.press("Tab");
  must(await page.evaluate(() => document.activeElement?.className === "skip"), "the first stop skips the navigation");
  await page.getByRole("button", { name: /Use the dark theme/ }).click();
  const theme = () => page.evaluate(() => document.documentElement.dataset.theme);
  must((await theme()) === "dark", "the theme can be switched");
  await page.reload();
  await page.getByRole("heading", { level: 1, name: "Overview" }).waitFor();
  must((await theme()) === "dark", "the browser remembers the theme");
}

/** Changes a document with review, sees it live, and rolls it back. `gate` answers as the document says. */
async function change(gate, kind, namespace, name, before, after, shots) {
  const page = await open();
  await signIn(page);
  const answer = async () => (await page.request.get(gate)).text();
  must((await answer()).includes(before), "the gateway answers as it was told", await answer());
  if (shots) await shoot(page, shots, "proxies", "proxies");
  await visit(page, `configuration/documents/${kind}/${namespace}/${name}`);
  await page.getByRole("button", { name: "Edit" }).click();
  const editor = page.getByRole("textbox", { name: `${kind} ${namespace} ${name} as YAML` });
  const text = await editor.inputValue();
  must(text.includes(before), "the document is shown as YAML", text);

  await editor.fill(text.replace("directResponse", "directRespones"));
  await page.getByRole("button", { name: "Check and review" }).click();
  await page.getByRole("alert").getByText(/directResponse/).first().waitFor();
  must(true, "a mistake is told with what was meant");
  await editor.fill(`${text}  wrong: [`);
  await page.getByRole("button", { name: "Check and review" }).click();
  await page.getByRole("alert").getByText(/Line \d+, column \d+/).waitFor();
  must(true, "what is no YAML is told with its place");

  await editor.fill(text.replace(before, after));
  await page.getByRole("button", { name: "Check and review" }).click();
  const diff = page.getByRole("region", { name: /What differs in/ });
  await diff.waitFor();
  const [minus, plus] = [await diff.locator("li.minus").innerText(), await diff.locator("li.plus").innerText()];
  must(minus.includes(before) && plus.includes(after), "the difference is shown before anything happens", minus, plus);
  must((await answer()).includes(before), "nothing has happened yet");
  await page.getByLabel("Why, for the history").fill("say it another way");
  if (shots) await both(page, shots, "review");
  await page.getByRole("button", { name: "Apply" }).click();
  await page.getByText(/is live on 1 proxy/).waitFor();
  must((await answer()).includes(after), "what is said to be live is live", await answer());

  await page.getByRole("link", { name: /in the history/ }).click();
  await page.getByText("say it another way").first().waitFor();
  const revisions = page.getByRole("navigation", { name: "Revisions" });
  await revisions.getByRole("link").nth(1).click();
  await page.getByRole("button", { name: "Roll back to this" }).click();
  await page.getByRole("heading", { name: /What rolling back to revision/ }).waitFor();
  await page.getByRole("region", { name: /What differs in/ }).last().waitFor();
  if (shots) await both(page, shots, "history");
  await page.getByRole("button", { name: "Roll back", exact: true }).click();
  await page.getByText(/is live on 1 proxy/).waitFor();
  must((await answer()).includes(before), "what was rolled back is as before", await answer());

  for (const place of ["proxies", "configuration/history", "access", ""]) {
    await visit(page, place);
    must(complaints.length === 0, `nothing is complained about at ${place || "overview"}`, ...complaints);
  }
}

async function both(page, shots, name) {
  for (const theme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme: theme });
    await page.waitForTimeout(300);
    await page.screenshot({ path: `${shots}/${name}-${theme}.png` });
  }
  await page.emulateMedia({ colorScheme: "light" });
}

async function shoot(page, shots, path, name) {
  await visit(page, path);
  await both(page, shots, name);
}

/** Who has no token sees nothing. */
async function door() {
  const page = await open();
  await page.goto(`${base}/`);
  await page.getByLabel("Token").fill("not the token");
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("alert").getByText("This token opens nothing here.").waitFor();
  must(page.url() === `${base}/ui/`, "a browser at the door is led to the dashboard", page.url());
  await signIn(page);
  const cookies = await page.context().cookies();
  must(
    cookies.length === 1 && cookies[0].httpOnly && cookies[0].sameSite === "Strict",
    "the session is a cookie that scripts cannot read",
    cookies.map(({ name, httpOnly, sameSite }) => ({ name, httpOnly, sameSite })),
  );
  const kept = await page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie]));
  must(!kept.includes(token), "the token is kept nowhere in the page");
  const forged = await page.evaluate(() =>
    fetch("../api/v1/rollback", { method: "POST", headers: { "content-type": "application/json" }, body: '{"to":1}' }).then((one) => one.status),
  );
  must(forged === 403, "a change without the field of the page is refused", forged);
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByLabel("Token").waitFor();
  must((await page.evaluate(() => fetch("../api/v1/session").then((one) => one.status))) === 401, "who has signed out is a stranger");
  must(complaints.length === 0, "nothing is complained about", ...complaints);
}

/** Logs in at the identity provider; one whom it does not know enough about is told so. */
async function provider(name) {
  const page = await open();
  await page.goto(`${base}/ui/?refused=role_missing`);
  await page.getByRole("alert").getByText("you have no role here").waitFor();
  must(page.url() === `${base}/ui/`, "what was refused does not stay in the address", page.url());
  await page.getByRole("link", { name: `Sign in with ${name}` }).click();
  await page.getByRole("heading", { level: 1, name: "Overview" }).waitFor();
  const who = await page.evaluate(() => fetch("../api/v1/session").then((answer) => answer.json()));
  must(who.via === "session" && who.role === "editor" && who.name === "ann@example.com", "a browser is logged in by the provider", who);
  const cookies = await page.context().cookies();
  const session = cookies.find((one) => one.name.startsWith("rhumb_session"));
  must(session?.httpOnly && session.sameSite === "Strict", "the session is a cookie that scripts cannot read", session?.name);
}

try {
  await parts[part](...more);
  must(complaints.length === 0, "the browser has nothing to complain about", ...complaints);
} finally {
  await browser.close();
}
