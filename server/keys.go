package server

import (
	"context"
	"fmt"
	"time"

	"hearth/state/matrix"
	"hearth/store"
)

// keyOverlap is for how long the old signing key still counts after the new one has
// come: what was signed with it a moment before is then on its way.
const keyOverlap = 10 * time.Second

// rotateKeys makes a new key that signs from now on and returns its ID. The old one
// is published for ever for what it has signed.
func (o *owner) rotateKeys(ctx context.Context) (string, error) {
	var key matrix.SigningKey
	err := o.store.Update(ctx, func(tx *store.Tx) (err error) {
		if err := tx.NewSigningKey(o.now().Add(keyOverlap)); err != nil {
			return err
		}
		key, err = tx.SigningKey()
		return err
	})
	if err != nil {
		return "", fmt.Errorf("rotate the signing key: %w", err)
	}
	o.rooms.SetKey(key)
	return key.ID, nil
}

func rotateKeysCommand() command {
	return command{
		name: "keys rotate",
		help: "sign with a new key from now on; the old one stays published for what it has signed",
		run: func(ctx context.Context, c call) error {
			return withOwner(ctx, c.config, func(socket *adminClient) error {
				var made keyAnswer
				if err := socket.do(ctx, "/keys/rotate", struct{}{}, &made); err != nil {
					return err
				}
				fmt.Fprintf(c.std.Out, "the server signs with %s\n", made.Key)
				return nil
			})
		},
	}
}
