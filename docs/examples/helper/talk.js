/** Talk with the assistant of a preset. `hangUp()` of what is returned ends the call; so does leaving the page. */
export async function talk(switchboard, getUserToken, preset, speaker, onEvent, onState) {
  const { connect } = await import(`${switchboard}/switchboard.js`); // 1. from the service itself: nothing to install
  return connect({
    url: switchboard,
    token: getUserToken, // 2. the JWT of your own login, or a function that gives it
    preset, // 3. its name, or none for the default
    audio: speaker,
    onEvent, // such as `session.created`
    onState, // "connected", "reconnecting", "ended" and why
  });
}
