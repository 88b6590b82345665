package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"weft/coord/ops"
	"weft/coord/webapi"
	"weft/coord/webapi/client"
)

func signInCmd() *cobra.Command {
	cmd := group("sign-in", "Show and set what is demanded of people who sign in to the console, and of their devices", signInShowCmd(), signInSetCmd())
	cmd.Long = `Shows and sets what is demanded of people who sign in to the console, and of their
devices.

  weft-server sign-in show
  weft-server sign-in set --second-factor on    operators, admins and owners need a
                                                passkey, or codes beside the password
  weft-server sign-in set --device-days 30      people sign their devices without tags in
                                                again every 30 days, with weft up there, or
                                                these reach nothing; 0: never

After --device-days is made shorter, the first period begins now for all devices.`
	return cmd
}

func signInShowCmd() *cobra.Command {
	return apiVerb{
		use: "show", short: "Show what is demanded",
		ask: func(ctx context.Context, c *client.Client, _ []string) (answer, error) {
			return demanded(c.SignIn(ctx))
		},
	}.command()
}

func signInSetCmd() *cobra.Command {
	var factor string
	var days int
	const unset = -1
	cmd := apiVerb{
		use: "set", short: "Set what is demanded",
		check: func(*cobra.Command, []string) error {
			switch {
			case factor != "on" && factor != "off" && factor != "":
				return usagef("--second-factor: want on or off")
			case factor == "" && days == unset:
				return usagef("say what to set: --second-factor on or off, or --device-days")
			}
			return nil
		},
		ask: func(ctx context.Context, c *client.Client, _ []string) (answer, error) {
			var set ops.SetSignIn
			if on := factor == "on"; factor != "" {
				set.Demanded = &on
			}
			if days != unset {
				set.DeviceDays = &days
			}
			return demanded(c.SetSignIn(ctx, set))
		},
	}.command()
	cmd.Flags().IntVar(&days, "device-days", unset, "after how many days, 1 to 365, a person has to sign a device without tags in again; 0: never")
	cmd.Flags().SetAnnotation("device-days", noEnv, nil)
	cmd.Flags().StringVar(&factor, "second-factor", "", "on: operators, admins and owners need a passkey, or codes beside the password; off")
	cmd.Flags().SetAnnotation("second-factor", noEnv, nil)
	return cmd
}

// demanded is the answer that shows what is demanded, unless it could not be asked or set.
func demanded(s webapi.SignIn, err error) (answer, error) {
	text := "not demanded"
	if s.Demanded {
		text = "demanded of operators, admins and owners"
	}
	days := "never"
	if s.DeviceDays > 0 {
		days = fmt.Sprintf("every %d days", s.DeviceDays)
	}
	return answer{schema: "sign-in/1", object: s, out: fmt.Sprintf("passkey, or codes beside the password: %s\npeople sign their devices in again: %s\n", text, days)}, err
}
