// Logs in through the proxy with a real browser.
//
// login.mjs GATE PROVIDER: both are ports of 127.0.0.1. Prints one line for each thing that works.

import { chromium } from "playwright-core";

const [gatePort, providerPort] = process.argv.slice(2);
const gate = `http://127.0.0.1:${gatePort}`;
const provider = `http://127.0.0.1:${providerPort}`;

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-dev-shm-usage"],
});

function must(holds, what, ...more) {
  if (!holds) {
    throw new Error(`${what}: ${more.map((one) => JSON.stringify(one)).join(" ")}`);
  }
  console.log(`ok ${what}`);
}

async function type(page, name) {
  await page.fill("input[name=login]", name);
  await page.fill("input[name=password]", "any");
  await page.click("button[type=submit]");
}

async function consent(page) {
  if (page.url().startsWith(provider)) {
    await page.click("button[type=submit]");
  }
}

async function login(page, name, path) {
  await page.goto(gate + path);
  must(page.url().startsWith(`${provider}/interaction/`), "a page leads to the login", page.url());
  await type(page, name);
  await page.waitForLoadState();
  await consent(page);
  await page.waitForURL(gate + path);
}

const echo = async (page) => JSON.parse(await page.innerText("body"));
const field = (seen, name) => seen.fields.filter(([key]) => key.toLowerCase() === name).map(([, value]) => value);
const ask = (page, path) =>
  page.evaluate(async (path) => {
    const answer = await fetch(path);
    return { status: answer.status, body: await answer.json() };
  }, path);

try {
  const first = await browser.newContext();
  const page = await first.newPage();
  await login(page, "ann", "/page?x=1&y=%2F");
  const seen = await echo(page);
  must(seen.target === "/page?x=1&y=%2F", "the page that was wanted comes after the login", seen.target);
  must(field(seen, "x-user")[0] === "ann", "the backend learns who it is", seen.fields);
  must(field(seen, "x-groups")[0]?.length > 8000, "claims may be larger than a cookie");
  must(!String(field(seen, "cookie")).includes("rhumb-"), "cookies of the session stay here", seen.fields);
  const cookies = (await first.cookies(gate)).filter((cookie) => cookie.name.startsWith("rhumb-"));
  must(
    cookies.length === 2 && cookies.every((one) => one.httpOnly && one.sameSite === "Lax" && one.value.length === 43),
    "the browser holds two random numbers and nothing else",
    cookies,
  );

  const token = field(seen, "authorization")[0];
  must(token?.startsWith("Bearer "), "the backend gets the access token", seen.fields);
  const again = field((await ask(page, "/again")).body, "authorization")[0];
  must(again === token, "the token is kept while it is good");
  await page.waitForTimeout(5200);
  const all = await Promise.all(Array.from({ length: 8 }, () => ask(page, "/renewed")));
  const renewed = new Set(all.map((one) => field(one.body, "authorization")[0]));
  must(
    all.every((one) => one.status === 200) && renewed.size === 1 && !renewed.has(token),
    "a token that expired is fetched anew, once for all requests",
    [...renewed],
  );

  const stranger = await (await browser.newContext()).newPage();
  const refused = await stranger.request.get(`${gate}/page`, { maxRedirects: 0 });
  must(refused.status() === 401, "who opens no page is refused", refused.status());
  const forged = await stranger.goto(`${gate}/oauth2/callback?code=x&state=y`);
  must(forged.status() === 400, "a login that was not begun here fails", forged.status());

  const tabs = await browser.newContext();
  const [one, two] = [await tabs.newPage(), await tabs.newPage()];
  await one.goto(`${gate}/one`);
  await two.goto(`${gate}/two`);
  await type(two, "bob");
  await two.waitForLoadState();
  await consent(two);
  await two.waitForURL(`${gate}/two`);
  await type(one, "bob");
  await one.waitForLoadState();
  await consent(one);
  await one.waitForURL(`${gate}/one`);
  must(field(await echo(one), "x-user")[0] === "bob", "two tabs can log in at the same time");

  // A link of a login that somebody else began logs nobody in.
  const evil = await (await browser.newContext()).newPage();
  await evil.goto(`${gate}/evil`);
  await type(evil, "mallory");
  await evil.waitForLoadState();
  // The last steps by hand, so that the code is not used up.
  const form = { prompt: "consent" };
  let step = await evil.request.post(await evil.getAttribute("form", "action").then((path) => new URL(path, evil.url()).href), {
    form,
    maxRedirects: 0,
  });
  let stolen = step.headers().location;
  for (let hops = 0; hops < 5 && !stolen.startsWith(`${gate}/oauth2/callback?`); hops += 1) {
    step = await evil.request.get(new URL(stolen, provider).href, { maxRedirects: 0 });
    stolen = step.headers().location;
  }
  const victim = await (await browser.newContext()).newPage();
  const trapped = await victim.goto(stolen);
  must(trapped.status() === 400, "a link cannot log anybody in as somebody else", trapped.status());
  await evil.goto(stolen);
  must(field(await echo(evil), "x-user")[0] === "mallory", "the same link works where the login was begun");

  await page.goto(`${gate}/oauth2/logout`);
  must(page.url().startsWith(`${provider}/session/end`), "a logout goes on at the provider", page.url());
  await page.click("button[value=yes], button[type=submit]");
  await page.waitForURL(`${gate}/bye**`);
  must((await echo(page)).target.startsWith("/bye"), "the provider leads back here");
  must((await first.cookies(gate)).every((cookie) => !cookie.name.startsWith("rhumb-session")), "a logout takes the cookie");
  await page.goto(`${gate}/page`);
  must(page.url().startsWith(provider), "after a logout there is a login", page.url());

  must((await ask(one, "/before")).status === 200, "the other session lives");
  await two.goto(`${provider}/session/end`);
  await two.click("button[value=yes], button[type=submit]");
  await two.waitForLoadState();
  let status = 200;
  for (let tries = 0; tries < 50 && status === 200; tries += 1) {
    await one.waitForTimeout(100);
    status = (await ask(one, "/after")).status;
  }
  must(status === 401, "a logout at the provider ends the session here", status);
} finally {
  await browser.close();
}
