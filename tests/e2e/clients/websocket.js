// Runs the example with what stands on the command line, and writes what it gave, or threw.
import { ask } from "../../../docs/examples/websocket/ask.js";

const [switchboard, provider, userToken, question] = process.argv.slice(2);
ask(switchboard, provider, userToken, question)
  .then((gave) => ({ gave }), ({ name, message }) => ({ threw: name, message }))
  .then((told) => console.log(JSON.stringify(told)));
