// A basket that is paid once, however often somebody clicks.
const once = require("once");

exports.basket = (cents) => {
  let paid = 0;
  return { pay: once(() => (paid += cents)), paid: () => paid };
};
