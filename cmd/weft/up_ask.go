package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
	"weft/cmd/internal/qr"
	"weft/overlay/status"
)

// askToJoin has the daemon ask to join without a token, and shows what a person has to
// approve. It waits for that; an interrupt withdraws the request.
func askToJoin(cmd *cobra.Command, server, fingerprint string) (status.Status, error) {
	out := cmd.ErrOrStderr()
	unknown := ""
	times := 0
	shown := func(a status.Asked) {
		if a.Fingerprint != "" {
			unknown = a.Fingerprint
			return
		}
		if times++; times > 1 {
			fmt.Fprintln(out, "The server was restarted, and does not know the last code any more.")
		}
		printAsked(out, a)
	}
	st, err := client(cmd).Ask(cmd.Context(), server, fingerprint, shown)
	if err == nil || unknown == "" || fingerprint != "" || !cli.IsTerminal(cmd.InOrStdin()) {
		return st, err
	}
	fmt.Fprintf(out, `This machine does not trust the certificate of the server at %s.
Its SHA-256 fingerprint is
  %s
Compare it with the one that weft-server printed when it started, or ask the owner
of the server. If they differ, somebody else answers in its place.
`, cli.Plain(server), cli.Plain(unknown))
	if !cli.Confirm(cmd.InOrStdin(), out, "Are they the same?") {
		return st, &status.Error{Kind: status.KindDenied, Message: "nothing was sent to the server", Hint: "ask its owner for the fingerprint, or for a token"}
	}
	return client(cmd).Ask(cmd.Context(), server, unknown, shown)
}

// signInAgain has the person approve whose device this is. While the device still works, a
// server that cannot be asked is no reason to fail.
func signInAgain(cmd *cobra.Command, st status.Status) (status.Status, error) {
	signed, err := client(cmd).Ask(cmd.Context(), "", "", func(a status.Asked) { printAsked(cmd.ErrOrStderr(), a) })
	if status.KindOf(err) == status.KindUnavailable && !st.Self.SignIn.Overdue {
		fmt.Fprintf(cmd.ErrOrStderr(), "weft: note: this device has to be signed in again by %s: %v\n", st.Self.SignIn.Due.Local().Format(time.DateTime), err)
		return st, nil
	}
	return signed, err
}

// printAsked shows a code: where to approve it, and on a terminal the same as a QR code.
func printAsked(out io.Writer, a status.Asked) {
	what := "To let this device in"
	if a.SignIn {
		what = "To sign this device in again"
	}
	fmt.Fprintf(out, "%s, open\n\n  %s\n\nin a browser where you are signed in, and check that it shows this code:\n\n  %s\n\n", what, cli.Plain(a.URL), cli.Plain(a.Code))
	if cli.IsTerminal(out) {
		if c, err := qr.Encode(a.URL); err == nil {
			fmt.Fprintln(out, c.Terminal())
		}
	}
	fmt.Fprintf(out, "Waiting until %s; Ctrl-C ends it.\n", a.Expires.Local().Format(time.TimeOnly))
}
