import { complaints, expect, TestNode, test } from "./node";
import { seed } from "./seed";

const light = "[data-light]";

test("a node without events says how to send the first, and a stopped one is red until it is back", async ({
  page,
}) => {
  const node = await TestNode.started();
  try {
    const wrong = complaints(page);
    await page.goto(node.url);
    const funnel = page.getByRole("region", { name: "Sign-up funnel" });
    await expect(funnel.getByText("No events yet")).toBeVisible();
    await expect(funnel.getByText(`curl -X POST ${node.url}/v1/events`)).toBeVisible();
    await expect(page.getByTestId("conversion")).toHaveText("–");
    await node.send(seed.events);
    await expect(page.getByTestId("funnel-counts")).toHaveText(seed.funnel);
    await expect(page.locator(light)).not.toHaveAttribute("data-light", "red");

    await node.stop();
    await expect(page.locator(light)).toHaveAttribute("data-light", "red");
    await expect(page.getByRole("status").filter({ hasText: "Unreachable" })).toBeVisible();
    await expect(funnel.getByText(/Stale since \d\d:\d\d:\d\d/)).toBeVisible({ timeout: 30_000 });
    await expect(page.getByTestId("funnel-counts")).toHaveText(seed.funnel);

    await node.start();
    await expect(page.locator(light)).not.toHaveAttribute("data-light", "red");
    await expect(funnel.getByText(/Stale since/)).toHaveCount(0, { timeout: 30_000 });
    await expect(page.getByTestId("funnel-counts")).toHaveText(seed.funnel);
    expect(wrong).toEqual([]);
  } finally {
    await node.remove();
  }
});

test("an answer that lacks a shard is marked, with how many answered", async ({ page, node }) => {
  await page.route("**/v1/live*", (route) => route.abort());
  await page.route("**/v1/query*", async (route) => {
    const response = await route.fetch();
    const answer = await response.json();
    answer.receipt.complete = false;
    answer.receipt.shards.answered = 15;
    await route.fulfill({ response, json: answer });
  });
  await page.goto(node.url);
  await expect(page.getByText("Partial: 15 of 16 shards")).toHaveCount(4);
  await expect(page.locator("main path[stroke-dasharray]").first()).toBeAttached();
});

test("what is refused is on the page of dead letters and can be sent again", async ({ page, node }) => {
  await fetch(`${node.url}/v1/events`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify([{ user_id: "no name" }]),
  });
  await page.goto(`${node.url}/dead-letters`);
  await expect(page.getByText("missing_field", { exact: true })).toBeVisible();
  await page.getByRole("button", { name: "Retry all" }).click();
  await expect(page.getByText("1 were refused again")).toBeVisible();
});

test("an event is on the screen within a second of its ack", async ({ page, node }) => {
  await page.goto(node.url);
  await expect(page.getByRole("status").filter({ hasText: "Live" })).toBeVisible();
  const before = Number(await page.getByTestId("active-users").textContent());
  await node.send([seed.oneMore(`live-${Date.now()}`)]);
  await expect(page.getByTestId("active-users")).toHaveText(String(before + 1), { timeout: 1_000 });
});

test("without a stream the page asks every five seconds, and says so", async ({ page }) => {
  // A node of its own: another's first answer may be one that it had kept for somebody else.
  const node = await TestNode.started();
  try {
    await node.send(seed.events);
    await page.route("**/v1/live*", (route) => route.abort());
    await page.goto(node.url);
    await expect(page.getByRole("status").filter({ hasText: "Connected" })).toBeVisible();
    await page.locator(light).hover();
    await expect(page.getByText(/asked every 5 s/).first()).toBeVisible();
    await expect(page.getByTestId("active-users")).toHaveText(seed.activeUsers);
    await node.send([seed.oneMore(`polled-${Date.now()}`)]);
    await expect(page.getByTestId("active-users")).toHaveText(String(Number(seed.activeUsers) + 1), { timeout: 7_000 });
  } finally {
    await node.remove();
  }
});

test("a node that answers slowly is yellow, with the reason", async ({ page, node }) => {
  await page.route("**/v1/query*", async (route) => {
    await new Promise((done) => setTimeout(done, 1_300));
    await route.continue();
  });
  await page.goto(node.url);
  await expect(page.locator(light)).toHaveAttribute("data-light", "yellow");
  await expect(page.locator(light)).toContainText("Slow: 95 % of answers within");
});

test("a cluster that counts no features says how to define it, and then counts them", async ({ page }) => {
  const node = await TestNode.started();
  try {
    await fetch(`${node.url}/v1/definitions/feature_usage`, { method: "DELETE" });
    await page.goto(node.url);
    const features = page.getByRole("region", { name: "Top features" });
    const curl = await features.getByText(/^curl -X POST/).textContent();
    const body = /-d '(.*)'$/.exec(curl ?? "")?.[1] ?? "";
    const headers = { "content-type": "application/json" };
    expect((await fetch(`${node.url}/v1/definitions`, { method: "POST", headers, body })).status).toBe(200);
    await node.send(seed.events);
    await expect(features.getByRole("listitem")).toHaveText(seed.features.map(({ name, users }) => `${name}${users}`));
  } finally {
    await node.remove();
  }
});
