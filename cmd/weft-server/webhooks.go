package main

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
	"weft/coord/ops"
	"weft/coord/webapi/client"
)

func webhooksCmd() *cobra.Command {
	cmd := group("webhooks", "Make, list, test and delete webhooks, which send events to other programs", webhooksListCmd(), webhooksCreateCmd(), webhooksShowCmd(), webhooksEditCmd(),
		webhooksTestCmd(), webhooksRotateCmd(), webhooksDeleteCmd())
	cmd.Long = `Sends what happens to other programs: what is done, as in weft-server audit list, and
which devices come online and go offline. Each event is one POST of JSON, signed with
the webhook's secret. An event that is not accepted is sent again, for a day; then the
webhook is paused until it is enabled again.

  weft-server webhooks create https://example.com/weft --event device.* --event presence.offline
  weft-server webhooks test ID
  weft-server webhooks edit ID --enable`
	return cmd
}

func webhookIDs(ctx context.Context, c *client.Client) (words []string, err error) {
	list, err := c.Webhooks(ctx)
	for _, w := range list {
		words = append(words, w.ID)
	}
	return words, err
}

func webhooksListCmd() *cobra.Command {
	return apiVerb{
		use: "list", short: "List the webhooks",
		ask: func(ctx context.Context, c *client.Client, _ []string) (answer, error) {
			list, err := c.Webhooks(ctx)
			rows := [][]string{{"ID", "STATE", "EVENTS", "SENT", "LAST", "URL", "NOTE"}}
			for _, w := range list {
				rows = append(rows, []string{w.ID, w.State, strings.Join(w.Events, ","), strconv.FormatUint(w.Delivered, 10), when(w.Last), cli.Plain(w.URL), w.Note})
			}
			return answer{schema: "webhooks/1", object: map[string]any{"webhooks": append([]ops.Webhook{}, list...)}, out: table(rows)}, err
		},
	}.command()
}

// secretOf is the answer of a verb that made the secret of a webhook.
func secretOf(made ops.WebhookCreated) answer {
	return answer{schema: "webhook-secret/1", object: made, out: fmt.Sprintf("id %s\nsecret %s\n", made.ID, made.Secret)}
}

func webhooksCreateCmd() *cobra.Command {
	var hook ops.CreateWebhook
	cmd := apiVerb{
		use:   "create URL [--event E]... [--tag T]... [--allow-target ADDRESS]...",
		short: "Make a webhook that sends events to a URL, and print its secret, which cannot be shown again",
		long: `Sends what happens from now on to a URL, and prints the secret that signs it. The
secret is shown once.

An event is named as in weft-server audit list --op, such as device.rename;
presence.online and presence.offline are for devices that go online and offline, and
refused.device.rename is for a rename that was refused. device.* is all that begin
so, and * is all. With --tag only events about devices and keys with that tag.

Receivers in the LAN are reached; addresses of this machine, of its link, of cloud
metadata and of overlay networks are not, and http is not used, unless the address, or
a range of them, is allowed with --allow-target.`,
		args:  cobra.ExactArgs(1),
		words: cobra.NoFileCompletions,
		ask: func(ctx context.Context, c *client.Client, a []string) (answer, error) {
			hook.URL = a[0]
			made, err := c.CreateWebhook(ctx, hook)
			return secretOf(made), err
		},
	}.command()
	f := cmd.Flags()
	f.StringSliceVar(&hook.Events, "event", nil, "events to send (repeatable; default: all)")
	f.StringSliceVar(&hook.Tags, "tag", nil, "only about devices and keys with this tag (repeatable)")
	f.StringSliceVar(&hook.Allow, "allow-target", nil, "address or range to allow though it is the server's own, link-local or of an overlay (repeatable)")
	f.StringVar(&hook.Note, "note", "", "a note for people")
	hookFlags(cmd)
	return cmd
}

// hookFlags marks the flags of webhooks that other verbs have too, so that no variable sets them.
func hookFlags(cmd *cobra.Command) {
	for _, name := range []string{"event", "tag", "allow-target", "note", "url"} {
		if cmd.Flags().Lookup(name) != nil {
			cmd.Flags().SetAnnotation(name, noEnv, nil)
		}
	}
}

func webhooksShowCmd() *cobra.Command {
	return apiVerb{
		use: "show ID", short: "Show a webhook and the last attempts to send it", args: cobra.ExactArgs(1), words: complete(webhookIDs),
		ask: func(ctx context.Context, c *client.Client, a []string) (answer, error) {
			w, err := c.Webhook(ctx, a[0])
			return answer{schema: "webhook/1", object: w, out: webhookText(w)}, err
		},
	}.command()
}

func webhookText(w ops.Webhook) string {
	var allow []string
	for _, p := range w.Allow {
		allow = append(allow, allowed(p))
	}
	rows := [][]string{
		{"id", w.ID}, {"state", w.State}, {"url", cli.Plain(w.URL)}, {"events", strings.Join(w.Events, ",")}, {"tags", strings.Join(w.Tags, ",")},
		{"allowed targets", strings.Join(allow, ",")}, {"note", w.Note}, {"created", when(&w.Created)}, {"old secret until", when(w.OldUntil)},
		{"sent", strconv.FormatUint(w.Delivered, 10)}, {"last sent", when(w.Last)}, {"failing since", when(w.Failing)}, {"attempts", strconv.Itoa(w.Attempts)},
		{"next attempt", when(w.Next)}, {"paused", when(w.Paused)}, {"last error", cli.Plain(w.LastError)},
	}
	if w.Missed > 0 {
		rows = append(rows, []string{"missed", fmt.Sprintf("up to %d events were never sent, because their records were removed or they became too old; the last one %s", w.Missed, when(w.MissedAt))})
	}
	if w.State == ops.WebhookPaused {
		rows = append(rows, []string{"to go on", "weft-server webhooks edit " + w.ID + " --enable"})
	}
	if len(w.Recent) == 0 {
		return table(rows)
	}
	recent := [][]string{{"TIME", "EVENT", "STATUS", "TOOK", "RESULT"}}
	for _, d := range w.Recent {
		result := "taken"
		if d.Error != "" {
			result = cli.Plain(d.Error)
		}
		recent = append(recent, []string{d.At.Local().Format("2006-01-02 15:04:05"), d.Op, status(d.Status), fmt.Sprint(d.TookMS, " ms"), result})
	}
	return table(rows) + "\n" + table(recent)
}

func status(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

// allowed returns an allowed target in the form in which people type it.
func allowed(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

func webhooksEditCmd() *cobra.Command {
	var e ops.EditWebhook
	var url, note string
	var events, tags, allow []string
	var enable, disable bool
	cmd := apiVerb{
		use:   "edit ID [--url U] [--event E]... [--tag T]... [--allow-target ADDRESS]... [--enable | --disable]",
		short: "Change a webhook, or resume one that was paused",
		long: `Changes what is given of a webhook: --event, --tag and --allow-target replace those it
had, and --tag "" is for none. One that was paused because it failed for a day goes on
with what it has not sent (--enable); one that was disabled does not get the
events of that time.`,
		args:  cobra.ExactArgs(1),
		words: complete(webhookIDs),
		check: func(cmd *cobra.Command, _ []string) error {
			given, some := cmd.Flags().Changed, false
			if enable && disable {
				return usagef("--enable and --disable exclude each other")
			}
			for name, set := range map[string]func(){
				"url": func() { e.URL = &url }, "note": func() { e.Note = &note }, "event": func() { e.Events = &events },
				"tag": func() { tags = words(tags); e.Tags = &tags }, "allow-target": func() { allow = words(allow); e.Allow = &allow },
				"enable": func() { e.Enabled = &enable }, "disable": func() { on := !disable; e.Enabled = &on },
			} {
				if given(name) {
					set()
					some = true
				}
			}
			if !some {
				return usagef("say what to change: --url, --event, --tag, --allow-target, --note, --enable or --disable")
			}
			return nil
		},
		ask: func(ctx context.Context, c *client.Client, a []string) (answer, error) {
			w, err := c.EditWebhook(ctx, a[0], e)
			return answer{schema: "webhook/1", object: w, said: fmt.Sprintf("the webhook %s is changed; see: weft-server webhooks show %[1]s", w.ID)}, err
		},
	}.command()
	f := cmd.Flags()
	f.StringVar(&url, "url", "", "where it is sent")
	f.StringSliceVar(&events, "event", nil, "what is sent (repeatable)")
	f.StringSliceVar(&tags, "tag", nil, "only about devices and keys with this tag (repeatable)")
	f.StringSliceVar(&allow, "allow-target", nil, "address or range to allow though it is the server's own, link-local or of an overlay (repeatable)")
	f.StringVar(&note, "note", "", "a note for people")
	f.BoolVar(&enable, "enable", false, "send, or go on")
	f.BoolVar(&disable, "disable", false, "do not send")
	hookFlags(cmd)
	for _, name := range []string{"enable", "disable"} {
		f.SetAnnotation(name, noEnv, nil)
	}
	return cmd
}

// words returns the words that are not empty. The result is not nil.
func words(in []string) []string {
	out := []string{}
	for _, w := range in {
		if w != "" {
			out = append(out, w)
		}
	}
	return out
}

func webhooksTestCmd() *cobra.Command {
	return apiVerb{
		use: "test ID", short: "Send an event webhook.test, and print the result", args: cobra.ExactArgs(1), words: complete(webhookIDs),
		ask: func(ctx context.Context, c *client.Client, a []string) (answer, error) {
			d, err := c.TestWebhook(ctx, a[0])
			got := answer{schema: "webhook-test/1", object: d, said: fmt.Sprintf("the receiver accepted the event: status %d after %d ms", d.Status, d.TookMS)}
			if d.Error != "" {
				got.fault = fmt.Errorf("the receiver did not accept the event: %s", cli.Plain(d.Error))
			}
			return got, err
		},
	}.command()
}

func webhooksRotateCmd() *cobra.Command {
	var keep string
	var d time.Duration
	cmd := apiVerb{
		use:   "rotate ID [--keep 24h]",
		short: "Give a webhook a new secret and print it; it cannot be shown again",
		long: `Gives a webhook a new secret and prints it. Until --keep is over requests carry a
signature of the old secret as well; with --keep 0 the old one ends now.`,
		args:  cobra.ExactArgs(1),
		words: complete(webhookIDs),
		check: func(*cobra.Command, []string) (err error) {
			if keep != "0" {
				if d, err = parseSpan(keep); err != nil {
					return usagef("--keep %q: want a time such as 1h, 24h or 7d, or 0", keep)
				}
			}
			return nil
		},
		ask: func(ctx context.Context, c *client.Client, a []string) (answer, error) {
			made, err := c.RotateWebhook(ctx, a[0], d)
			return secretOf(made), err
		},
	}.command()
	cmd.Flags().StringVar(&keep, "keep", "24h", "how long the old secret is used too: 0 to 7d")
	return cmd
}

func webhooksDeleteCmd() *cobra.Command {
	return apiVerb{
		use: "delete ID", short: "Delete a webhook", args: cobra.ExactArgs(1), words: complete(webhookIDs),
		ask: func(ctx context.Context, c *client.Client, a []string) (answer, error) {
			w, err := c.DeleteWebhook(ctx, a[0])
			return answer{schema: "webhook/1", object: w, said: "deleted the webhook " + w.ID}, err
		},
	}.command()
}
