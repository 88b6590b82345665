package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/spf13/cobra"

	"weft/cmd/internal/cli"
	"weft/coord/ops"
	"weft/coord/policy"
	"weft/coord/webapi/client"
)

func policyEditCmd() *cobra.Command {
	var asJSON *bool
	var yes bool
	cmd := &cobra.Command{
		Use:   "edit",
		Short: "Edit the policy, see which access changes, and put it into force",
		Long: `Opens the policy in an editor ($VISUAL, else $EDITOR, else nano or vi). Then
checks it, shows who gains and loses what, and asks before it puts it into force.
If somebody else has changed the policy meanwhile nothing is changed. Whatever
comes between, what you have typed is kept in a file.`,
		Args:              args(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			e := &policyEdit{cmd: cmd, yes: yes, screen: cmd.OutOrStdout()}
			if *asJSON {
				e.screen = cmd.ErrOrStderr()
			}
			p, err := e.run()
			if err != nil {
				return err
			}
			got := inForce(p)
			if p.Number == e.before.Number {
				got.said = "you changed nothing"
			}
			return got.print(cmd, *asJSON)
		},
	}
	asJSON = cli.JSONFlag(cmd)
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "put it into force without asking")
	return cmd
}

// policyEdit is one run of policy edit.
type policyEdit struct {
	cmd    *cobra.Command
	yes    bool
	screen io.Writer      // the standard output of the editor
	before ops.PolicyText // the policy in force at the beginning
	file   string         // that is edited
	begun  string         // the text with which the editor was opened
}

// run returns the policy that is in force at the end. While the editor runs there is no
// connection to the server, and the data directory is not locked.
func (e *policyEdit) run() (p ops.PolicyText, err error) {
	err = withServer(e.cmd, func(ctx context.Context, c *client.Client) (err error) { e.before, err = c.Policy(ctx); return err })
	if err != nil {
		return p, err
	}
	if e.begun = e.before.Text; e.begun == "" {
		e.begun = policy.StartingText
	}
	dir, err := os.MkdirTemp("", "weft-policy-")
	if err != nil {
		return p, fmt.Errorf("make a file to edit: %w", err)
	}
	e.file = filepath.Join(dir, "policy.hujson")
	if err := os.WriteFile(e.file, []byte(e.begun), 0o600); err != nil {
		os.RemoveAll(dir)
		return p, fmt.Errorf("make a file to edit: %w", err)
	}
	p, err = e.edit()
	if text, e2 := os.ReadFile(e.file); err != nil && (e2 != nil || string(text) != e.begun) {
		fmt.Fprintf(e.cmd.ErrOrStderr(), "weft-server: your text is saved in %s; put it into force with: weft-server policy apply %s\n", e.file, e.file)
		return p, err
	}
	os.RemoveAll(dir)
	return p, err
}

// edit opens the editor, and opens it again while the text has mistakes and the person wants to
// correct them.
func (e *policyEdit) edit() (p ops.PolicyText, err error) {
	for {
		if err := e.open(); err != nil {
			return p, err
		}
		text, err := os.ReadFile(e.file)
		if err != nil {
			return p, fmt.Errorf("read the edited policy: %w", err)
		}
		if string(text) == e.begun {
			return e.before, nil
		}
		if err = checkLength(e.file, text); err == nil {
			p, err = e.apply(string(text))
		}
		if !errors.Is(err, ops.ErrInvalid) && !errors.As(err, new(usageError)) || !cli.IsTerminal(e.cmd.InOrStdin()) {
			return p, err
		}
		fmt.Fprintln(e.cmd.ErrOrStderr(), "weft-server: "+oneLine(cli.Words(err)))
		if !cli.Confirm(e.cmd.InOrStdin(), e.cmd.ErrOrStderr(), "Edit it again?") {
			return p, errors.New("nothing was changed")
		}
	}
}

// apply checks a text and puts it into force.
func (e *policyEdit) apply(text string) (p ops.PolicyText, err error) {
	match := []string{e.before.Revision}
	err = withServer(e.cmd, func(ctx context.Context, c *client.Client) error {
		r, err := checkPolicy(ctx, e.cmd, c, e.file, text, match)
		if err != nil {
			return err
		}
		_, err = fmt.Fprint(e.cmd.ErrOrStderr(), changesText(r))
		return err
	})
	if err == nil && !e.yes {
		err = confirm(e.cmd, "Put it into force?")
	}
	if err == nil {
		err = withServer(e.cmd, func(ctx context.Context, c *client.Client) (err error) {
			p, err = c.SetPolicy(ctx, text, match)
			return inFile(e.cmd, e.file, err)
		})
	}
	if errors.Is(err, ops.ErrChanged) {
		err = errors.New("somebody else changed the policy since you began, so yours was not put into force; see: weft-server policy history")
	}
	return p, err
}

// open runs the editor on the file. Like other programs it takes EDITOR as a shell command,
// such as "code --wait".
func (e *policyEdit) open() error {
	editor := os.Getenv("VISUAL")
	if editor == "" {
		editor = os.Getenv("EDITOR")
	}
	for _, name := range []string{"nano", "vi"} {
		if editor == "" {
			if _, err := exec.LookPath(name); err == nil {
				editor = name
			}
		}
	}
	if editor == "" {
		return usagef("no editor found: set EDITOR, or write the policy to a file and use: weft-server policy apply FILE")
	}
	run := exec.Command("/bin/sh", "-c", editor+` "$1"`, "sh", e.file)
	run.Stdin, run.Stdout, run.Stderr = e.cmd.InOrStdin(), e.screen, e.cmd.ErrOrStderr()
	if err := run.Run(); err != nil {
		return fmt.Errorf("the editor %s failed: %w", editor, err)
	}
	return nil
}
