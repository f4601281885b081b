const assert = require("node:assert");
const test = require("node:test");
const { basket } = require("./basket.js");

test("it is paid once", () => {
  const mine = basket(250);
  mine.pay();
  mine.pay();
  assert.strictEqual(mine.paid(), 250);
});
