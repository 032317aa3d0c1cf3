// @ts-check
/** Every "no" in plain words: what happened, and what to do about it. */

/** @typedef {{what: string, next: string}} Words */

/** @type {Record<string, Words>} */
const WORDS = {
  invalid_request: { what: "Switchboard could not read that request.", next: "The detail below names the part that is wrong." },
  invalid_offer: { what: "That is not an offer a call can start from.", next: "Send the browser’s SDP unchanged, with an audio section and a data channel." },
  override_not_allowed: { what: "This preset does not let a caller change that.", next: "Leave the field out, or list it under the preset’s overrides on the server." },
  missing_token: { what: "Nobody is signed in.", next: "Send the user’s token: Authorization: Bearer …" },
  invalid_token: { what: "That token was not signed by anyone Switchboard trusts.", next: "Sign in again. If it keeps happening, compare issuer, audience and keys with the configuration." },
  expired_token: { what: "The sign-in has run out.", next: "Ask the app’s login for a fresh token and connect again." },
  unknown_issuer: { what: "Switchboard does not know the login that signed this token.", next: "Add the issuer to the configuration, or sign in with one that is listed." },
  grant_used: { what: "That token has already opened its call.", next: "Each one opens a single call. Ask /token for another." },
  grant_expired: { what: "That token waited too long and lapsed.", next: "Ask /token again right before calling: it lives for seconds, on purpose." },
  unknown_tenant: { what: "This login does not belong to a customer that Switchboard serves.", next: "Check the tenant claim in the token against the configuration." },
  tenant_suspended: { what: "Calls for this customer are switched off.", next: "An operator did that. It is undone with: switchboard resume." },
  origin_not_allowed: { what: "This website may not place calls for this customer.", next: "Add the page’s origin to the tenant’s origins." },
  preset_not_allowed: { what: "This user’s plan does not include that preset.", next: "Choose another preset, or another plan in the form." },
  unknown_preset: { what: "This customer has no preset of that name.", next: "Choose one from the list, or leave it out to get the default." },
  call_not_found: { what: "There is no such call of yours.", next: "It may be over, or belong to someone else: Switchboard does not tell which." },
  not_found: { what: "There is nothing at that address.", next: "Look the route up in the contract." },
  method_not_allowed: { what: "That address does not take this method.", next: "The Allow header lists the ones it does." },
  request_timeout: { what: "The request took too long to arrive.", next: "Try again on a better connection." },
  payload_too_large: { what: "The request is larger than any real one.", next: "An offer is a few kilobytes: look at what is being sent." },
  unsupported_media_type: { what: "The request has the wrong content type.", next: "Offers go as application/sdp, everything else as application/json." },
  headers_too_large: { what: "The request’s headers are too large.", next: "A token that carries fewer claims helps." },
  rate_limited: { what: "That was too often.", next: "Wait for the countdown, then try again." },
  too_many_calls: { what: "This user already has as many calls open as allowed.", next: "Hang up the other one, in another tab perhaps, or wait." },
  provider_refused: { what: "The provider turned the call down.", next: "That is for the operator: the reason stands in Switchboard’s log under this request id." },
  provider_unavailable: { what: "The provider cannot be reached.", next: "Try again in a moment." },
  provider_timeout: { what: "The provider did not answer in time.", next: "Try again. If the late call did start, Switchboard has hung it up." },
  provider_busy: { what: "The provider is at its limit, or down for a moment.", next: "Wait for the countdown, then try again." },
  degraded: { what: "Switchboard cannot check limits just now and will not guess.", next: "Wait for the countdown. The operator sees it in /readyz." },
  audit_unavailable: { what: "Switchboard could not write its record, so it handed nothing out.", next: "Wait for the countdown. An operator has to look at the audit sink." },
  draining: { what: "This server is shutting down for an update.", next: "Try again: another one will answer." },
  internal_error: { what: "Something broke inside Switchboard.", next: "Please report it with the request id below." },
  // What never reached a server, or came from this browser.
  network_error: { what: "There was no answer.", next: "Check that the server is running and that nothing between here and there blocks it." },
  microphone_denied: { what: "This page may not use the microphone.", next: "Allow it in the address bar, or go on without one." },
  microphone_absent: { what: "No microphone was found.", next: "Plug one in, or go on without one." },
  microphone_busy: { what: "Another program holds the microphone.", next: "Close it there, or go on without one." },
  microphone_unavailable: { what: "The microphone cannot be used here.", next: "Open this page through https or on localhost, or go on without one." },
  connection_failed: { what: "The call was accepted, but no audio path opened.", next: "A firewall or VPN may block UDP. Try another network." },
  browser_error: { what: "This browser stopped the call.", next: "The detail below is what it said." },
};

/**
 * @param {{code: string, status: number, message: string}} refusal
 * @returns {Words}
 */
export function inWords({ code, status, message }) {
  const known = Object.hasOwn(WORDS, code) ? WORDS[code] : undefined;
  return known ?? { what: message || `The answer was ${status}, without a reason.`, next: "Look the code up in the contract, or ask the operator with the request id." };
}

/** @param {string} code */
export const needsMicrophone = (code) => code.startsWith("microphone_");

/** Why a call is over, by `ended_by`. @type {Record<string, string>} */
export const ENDINGS = {
  owner: "You hung up.",
  deadline: "The time that this call had was used up.",
  idle: "This page stopped sending heartbeats, so the call was ended.",
  replaced: "A newer call of the same user took its place.",
  admin: "An operator ended the call.",
  suspended: "This customer was suspended, which ends its calls.",
  provider: "The provider ended the call.",
  lost: "The other side closed the call.",
};
