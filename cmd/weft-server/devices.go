package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
	"weft/coord/ops"
	"weft/coord/webapi/client"
	"weft/overlay/age"
)

func devicesCmd() *cobra.Command {
	return group("devices", "List, show, let in, rename, edit, replace and delete devices", devicesListCmd(), devicesWaitingCmd(), devicesApproveCmd(), devicesDenyCmd(), devicesShowCmd(),
		devicesRenameCmd(), devicesEditCmd(), devicesReplaceCmd(), devicesDeleteCmd())
}

func devicesListCmd() *cobra.Command {
	var asJSON *bool
	var want deviceFilter
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List all devices, or those that match every filter",
		Long: "List all devices, or those that match every filter.\n\n" +
			"--filter takes what the console's search field takes, as one argument. All of these must hold:\n" +
			"  is:online, offline, attention, expired, pending, unaware, ephemeral\n" +
			"  tag:camera   tag:camera,door   owner:anna   os:linux   relay:NAME\n" +
			"  version:1.2  version:<1.2      seen:>7d     seen:<1h   seen:never\n" +
			"  a word, which is in the name, an address, a tag, the owner, the system or the version\n" +
			"A minus before a term negates it (-tag:camera); quotes enclose spaces (owner:\"anna b\").",
		Example:           "  weft-server devices list --filter 'tag:camera is:offline seen:>7d' --sort -seen",
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if want.online && want.offline {
				return usagef("--online and --offline exclude each other: no device is both")
			}
			return withServer(cmd, func(ctx context.Context, a *client.Client) error {
				list, err := a.Devices(ctx, ops.DeviceQuery{Filter: want.filter, Sort: want.sort})
				if err != nil {
					return err
				}
				list = want.of(list)
				if *asJSON {
					return cli.PrintJSON(cmd.OutOrStdout(), list) // scripts rely on an array here
				}
				rows := [][]string{{"NAME", "ADDRESS", "STATE", "USER", "TAGS", "OS", "VERSION"}}
				for _, d := range list {
					rows = append(rows, []string{d.Name, d.IPv4.String(), state(d), d.User, strings.Join(d.Tags, ","), d.OS, d.Software})
				}
				if _, err := fmt.Fprint(cmd.OutOrStdout(), table(rows)); err != nil {
					return err
				}
				if n := unaware(list); n > 0 {
					fmt.Fprintf(cmd.ErrOrStderr(), "weft-server: %d of %d devices do not know all addresses of the server yet; they learn them when they are online\n", n, len(list))
				}
				return nil
			})
		},
	}
	asJSON = cli.JSONFlag(cmd)
	want.flags(cmd.Flags())
	return cmd
}

// unaware counts the devices that have not received all addresses of the server.
func unaware(list []ops.Device) (n int) {
	for _, d := range list {
		if !d.KnowsURLs {
			n++
		}
	}
	return n
}

// silentAfter is how long an online device must have been silent for the list to say so. The
// server has pinged it a moment ago, and a device that is well answers sooner than that.
const silentAfter = 10 * time.Second

func state(d ops.Device) string {
	s := "never seen"
	switch {
	case d.Online && d.LastSeen != nil && time.Since(*d.LastSeen) >= silentAfter:
		s = "online, heard " + age.Ago(time.Since(*d.LastSeen))
	case d.Online:
		s = "online"
	case d.LastSeen != nil:
		s = "last seen " + when(d.LastSeen)
	}
	if d.SignIn != nil && d.SignIn.Soon {
		s += ", " + deviceSignIn(d)
	}
	if !d.KnowsURLs {
		s += ", not told the server's addresses"
	}
	return s
}

// deviceSignIn says when a device has to be signed in again.
func deviceSignIn(d ops.Device) string {
	switch {
	case d.SignIn == nil:
		return "never"
	case d.SignIn.Overdue:
		return "sign-in overdue since " + when(&d.SignIn.Due) + ": on the device, weft up"
	case d.SignIn.Soon:
		return "sign in again by " + when(&d.SignIn.Due) + ": on the device, weft up"
	}
	return "again by " + when(&d.SignIn.Due)
}

func devicesShowCmd() *cobra.Command {
	return apiVerb{
		use: "show NAME", short: "Show one device, by name, address or id", args: cobra.ExactArgs(1), words: complete(deviceNames),
		ask: func(ctx context.Context, c *client.Client, a []string) (answer, error) {
			d, err := c.Device(ctx, a[0])
			return answer{schema: "device/1", object: d, out: deviceText(d)}, err
		},
	}.command()
}

func deviceText(d ops.Device) string {
	kind := "its owner's own"
	if len(d.Tags) > 0 {
		kind = strings.Join(d.Tags, ",")
	}
	if d.Ephemeral {
		kind += ", ephemeral"
	}
	name := d.FQDN
	if d.Title != d.Name {
		name += " (" + d.Title + ")"
	}
	rows := [][]string{
		{"name", name}, {"id", d.ID.String()}, {"ipv4", d.IPv4.String()}, {"ipv6", d.IPv6.String()}, {"state", state(d)}, {"user", d.User}, {"kind", kind},
		{"hostname", d.Hostname}, {"os", d.OS}, {"version", d.Software}, {"joined", when(&d.Created)}, {"certificate", "until " + when(&d.Expires)}, {"key", d.KeyID}, {"sign-in", deviceSignIn(d)},
		{"wildcard", map[bool]string{true: "on", false: "off"}[d.Wildcard]}, {"lan names", d.LANNames.String()},
	}
	for _, a := range d.Aliases {
		rows = append(rows, []string{"former name", a.Name + " until " + when(&a.Until)})
	}
	return table(rows)
}

func devicesReplaceCmd() *cobra.Command {
	return apiVerb{
		use: "replace NAME BY", short: "Delete a device and give its name to the device that replaces it", args: cobra.ExactArgs(2), words: complete(deviceNames),
		ask: func(ctx context.Context, c *client.Client, a []string) (answer, error) {
			d, err := c.ReplaceDevice(ctx, a[0], a[1])
			return deviceChanged(d, "%s has taken the place of the device of that name, which is deleted", d.Name), err
		},
	}.command()
}

func devicesRenameCmd() *cobra.Command {
	return apiVerb{
		use: "rename NAME NEWNAME", short: "Give a device another name", args: cobra.ExactArgs(2), words: complete(deviceNames),
		ask: func(ctx context.Context, c *client.Client, a []string) (answer, error) {
			d, err := c.EditDevice(ctx, a[0], ops.EditDevice{Name: &a[1]})
			return deviceChanged(d, "renamed %s to %s", a[0], called(d)), err
		},
	}.command()
}

func devicesEditCmd() *cobra.Command {
	var tags []string
	var untagged bool
	var user string
	var e ops.EditDevice
	cmd := apiVerb{
		use:   "edit NAME",
		short: "Give a device other tags, or another owner",
		long: "Give a device other tags, or another owner. --tag names all tags that it has afterwards.\n" +
			"Its earlier certificates are revoked at once; it fetches a new one by itself.",
		args:  cobra.ExactArgs(1),
		words: complete(deviceNames),
		check: func(cmd *cobra.Command, _ []string) error {
			switch given := cmd.Flags().Changed; {
			case untagged && given("tag"):
				return usagef("--tag and --no-tags exclude each other")
			case !untagged && !given("tag") && !given("user"):
				return usagef("nothing to change: give --tag, --no-tags or --user")
			case untagged || given("tag"):
				e.Tags = &tags
				fallthrough
			default:
				if given("user") {
					e.User = &user
				}
			}
			return nil
		},
		ask: func(ctx context.Context, c *client.Client, a []string) (answer, error) {
			d, err := c.EditDevice(ctx, a[0], e)
			kind := "no tags"
			if len(d.Tags) > 0 {
				kind = plural(len(d.Tags), "the tag") + " " + strings.Join(d.Tags, ", ")
			}
			return deviceChanged(d, "%s belongs to %s and has %s; it fetches its new certificate when it is online", called(d), d.User, kind), err
		},
	}.command()
	f := cmd.Flags()
	f.StringSliceVar(&tags, "tag", []string{}, "tag that it has afterwards (repeatable)")
	f.BoolVar(&untagged, "no-tags", false, "it has no tags afterwards, and acts as its owner")
	f.StringVar(&user, "user", "", "name of the owner")
	for _, name := range []string{"tag", "no-tags", "user"} {
		f.SetAnnotation(name, noEnv, nil)
	}
	return cmd
}

func devicesDeleteCmd() *cobra.Command {
	return apiVerb{
		use: "delete NAME", short: "Delete a device and revoke its certificates", args: cobra.ExactArgs(1), words: complete(deviceNames),
		ask: func(ctx context.Context, c *client.Client, a []string) (answer, error) {
			d, err := c.DeleteDevice(ctx, a[0])
			return deviceChanged(d, "deleted %s and revoked its certificates", called(d)), err
		},
	}.command()
}

// deviceChanged is the answer of a verb that changed a device: its name, and on standard error
// what was done.
func deviceChanged(d ops.Device, done string, args ...any) answer {
	return answer{schema: "device/1", object: d, said: cli.Plain(fmt.Sprintf(done, args...)), out: d.Name}
}

// called returns a device's name, and its Unicode form if that differs.
func called(d ops.Device) string {
	if d.Title == d.Name || d.Title == "" {
		return d.Name
	}
	return d.Name + " (" + d.Title + ")"
}

func deviceNames(ctx context.Context, a *client.Client) (words []string, err error) {
	list, err := a.Devices(ctx, ops.DeviceQuery{})
	for _, d := range list {
		words = append(words, d.Name)
	}
	return words, err
}
