package console

// access says who may use a route.
type access int

const (
	public    access = iota // anybody
	member                  // signed in
	anyMember               // signed in with less than the network demands, too
)

// route is one line of the table below: everything the site answers.
type route struct {
	pattern string
	access  access
	serve   func(*Console, *visit) error
}

var routes = []route{
	{"GET /static/{file}", public, (*Console).asset},
	{"GET /favicon.ico", public, (*Console).favicon},

	{"GET /welcome", public, (*Console).welcome},
	{"POST /welcome", public, (*Console).choosePassword},
	{"POST /welcome/passkey/options", public, (*Console).invitedPasskeyOptions},
	{"GET /sign-in", public, (*Console).signInPage},
	{"POST /sign-in", public, (*Console).signIn},
	{"POST /sign-in/code", public, (*Console).signInWithCode},
	{"GET /sign-in/with/{id}", public, (*Console).askProvider},
	{"GET /sign-in/with/{id}/answer", public, (*Console).answerOfProvider},
	{"POST /account/codes/prove", anyMember, (*Console).proveCode},
	{"POST /sign-in/passkey/options", public, (*Console).passkeySignInOptions},
	{"POST /sign-in/passkey", public, (*Console).signInWithPasskey},
	{"GET /sign-in/again", anyMember, (*Console).signInAgain},
	{"POST /sign-out", anyMember, (*Console).signOut},
	{"POST /theme", anyMember, (*Console).setTheme},

	{"GET /{$}", member, (*Console).home},
	{"GET /events", member, (*Console).events},
	{"GET /palette", member, (*Console).palette},
	{"GET /style", member, (*Console).style},

	{"GET /devices", member, (*Console).devices},
	{"GET /devices/{id}", member, (*Console).device},
	{"GET /devices/{id}/activity", member, (*Console).deviceActivity},
	{"GET /devices/{id}/settings", member, (*Console).deviceSettings},
	{"POST /devices/{id}/undo", member, (*Console).undoDevice},
	{"POST /devices/{id}/rename", member, (*Console).renameDevice},
	{"GET /devices/{id}/replace", member, (*Console).confirmReplace},
	{"POST /devices/{id}/replace", member, (*Console).replaceDevice},
	{"POST /devices/{id}/delete", member, (*Console).deleteDevice},
	{"POST /devices/{id}/test", member, (*Console).testDevice},
	{"POST /devices/{id}/assign", member, (*Console).assignDevice},
	{"POST /devices/{id}/dns", member, (*Console).setDeviceDNS},

	{"GET /dns", member, (*Console).dns},
	{"GET /dns/preview", member, (*Console).previewDNS},
	{"POST /dns/records", member, (*Console).addRecord},
	{"POST /dns/records/{id}/remove", member, (*Console).removeRecord},
	{"POST /dns/routes", member, (*Console).addRoute},
	{"POST /dns/routes/remove", member, (*Console).removeRoute},
	{"POST /dns/nameservers", member, (*Console).setNameservers},
	{"POST /dns/search", member, (*Console).setSearch},
	{"POST /dns/options", member, (*Console).setDNSOptions},
	{"POST /dns/aliases/remove", member, (*Console).removeAlias},

	{"GET /access", member, (*Console).access},
	{"GET /access/policy", member, (*Console).policyText},
	{"GET /access/tests", member, (*Console).policyTests},
	{"GET /access/tags", member, (*Console).policyTags},
	{"GET /access/history", member, (*Console).policyHistory},
	{"GET /access/can", member, (*Console).canReach},
	{"POST /access", member, (*Console).savePolicy},
	{"POST /access/check", member, (*Console).checkPolicy},
	{"POST /access/revert", member, (*Console).revertPolicy},

	{"GET /add", member, (*Console).add},
	{"GET /add/device", member, (*Console).addDevice},
	{"GET /add/laptop", member, (*Console).addLaptop},
	{"GET /approve", member, (*Console).approvePage},
	{"POST /approve", member, (*Console).approve},
	{"POST /approve/deny", member, (*Console).deny},
	{"GET /keys/{id}/join", member, (*Console).join},

	{"GET /keys", member, (*Console).keys},
	{"GET /keys/new", member, (*Console).newKey},
	{"POST /keys", member, (*Console).createKey},
	{"POST /keys/{id}/revoke", member, (*Console).revokeKey},

	{"GET /activity", member, (*Console).activity},
	{"GET /activity/export", member, (*Console).exportActivity},
	{"GET /activity/newer", member, (*Console).newerActivity},
	{"GET /activity/verify", member, (*Console).verifyPage},
	{"POST /activity/verify", member, (*Console).verifyActivity},
	{"GET /activity/introductions", member, (*Console).introductions},
	{"POST /activity/introductions", member, (*Console).reportIntroductions},

	{"GET /people", member, (*Console).people},
	{"GET /people/invite", member, (*Console).invitePage},
	{"POST /people/invite", member, (*Console).invite},
	{"GET /people/person", member, (*Console).person},
	{"POST /people/person/edit", member, (*Console).editPerson},
	{"POST /people/person/groups", member, (*Console).setPersonsGroups},
	{"POST /people/person/suspend", member, (*Console).suspendPerson},
	{"POST /people/person/resume", member, (*Console).resumePerson},
	{"POST /people/person/invite", member, (*Console).inviteAgain},
	{"POST /people/person/revoke", member, (*Console).revokeInvitation},
	{"POST /people/person/delete", member, (*Console).deletePerson},
	{"GET /people/groups", member, (*Console).groups},
	{"POST /people/groups", member, (*Console).createGroup},
	{"POST /people/groups/delete", member, (*Console).deleteGroup},
	{"GET /people/waiting", member, (*Console).identities},
	{"POST /people/waiting/{id}/approve", member, (*Console).approvePerson},
	{"POST /people/waiting/{id}/deny", member, (*Console).denyPerson},

	{"GET /account", anyMember, (*Console).account},
	{"GET /account/codes/set-up", anyMember, (*Console).setUpTOTP},
	{"POST /account/codes", anyMember, (*Console).enableTOTP},
	{"POST /account/codes/off", member, (*Console).disableTOTP},
	{"POST /account/codes/recovery", member, (*Console).newCodes},
	{"POST /account/password", member, (*Console).changePassword},
	{"POST /account/passkeys/options", anyMember, (*Console).newPasskeyOptions},
	{"POST /account/passkeys", anyMember, (*Console).addPasskey},
	{"POST /account/passkeys/{id}/remove", member, (*Console).removePasskey},
	{"POST /account/sessions/{id}/end", anyMember, (*Console).endSession},
	{"POST /account/sessions/end-others", anyMember, (*Console).endOtherSessions},
}
