package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"

	"go.etcd.io/bbolt"
)

// operation is one change, as it stands in the outbox and in a record.
type operation struct {
	Key   string
	Value *string // nil: the key is deleted
}

// The buckets of the application, on both sides.
var (
	dataKey   = []byte("data")   // the keys and values
	stateKey  = []byte("state")  // how many operations were applied, and their chain
	outboxKey = []byte("outbox") // of the leader: number -> operation, until it is a record. Its sequence numbers them
	countKey  = []byte("count")
	chainKey  = []byte("chain")
)

func makeBuckets(tx *bbolt.Tx) error {
	for _, key := range [][]byte{dataKey, stateKey, outboxKey} {
		if _, err := tx.CreateBucketIfNotExists(key); err != nil {
			return err
		}
	}
	return nil
}

// apply changes the data, and adds the operation to the chain: a hash over all operations in the order in which they were applied.
// Two sides with the same count and chain have applied the same, each operation once.
func apply(tx *bbolt.Tx, encoded []byte) error {
	var op operation
	if err := json.Unmarshal(encoded, &op); err != nil {
		return err
	}
	data := tx.Bucket(dataKey)
	var err error
	if op.Value == nil {
		err = data.Delete([]byte(op.Key))
	} else {
		err = data.Put([]byte(op.Key), []byte(*op.Value))
	}
	if err != nil {
		return err
	}
	state := tx.Bucket(stateKey)
	chain := sha256.Sum256(append(bytes.Clone(state.Get(chainKey)), encoded...))
	if err := state.Put(chainKey, chain[:]); err != nil {
		return err
	}
	return state.Put(countKey, number(count(tx)+1))
}

// count returns how many operations were applied.
func count(tx *bbolt.Tx) uint64 {
	if b := tx.Bucket(stateKey).Get(countKey); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// writeOperation is what the leader does with an operation: its effect, and the intent to send it, in one transaction.
func writeOperation(tx *bbolt.Tx, op operation) error {
	encoded, err := json.Marshal(op)
	if err != nil {
		return err
	}
	if err := apply(tx, encoded); err != nil {
		return err
	}
	outbox := tx.Bucket(outboxKey)
	n, err := outbox.NextSequence()
	if err != nil {
		return err
	}
	return outbox.Put(number(n), encoded)
}

// fromOutbox returns at most so many operations, from the number first on.
func fromOutbox(db *bbolt.DB, first uint64, most int) (operations [][]byte, err error) {
	err = db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(outboxKey).Cursor()
		for k, v := c.Seek(number(first)); k != nil && len(operations) < most; k, v = c.Next() {
			operations = append(operations, bytes.Clone(v)) // v is the transaction's
		}
		return nil
	})
	return operations, err
}

// emptyOutbox drops the operations up to last, which are records now.
func emptyOutbox(db *bbolt.DB, last uint64) error {
	return db.Update(func(tx *bbolt.Tx) error {
		outbox := tx.Bucket(outboxKey)
		first, _ := outbox.Cursor().First()
		if first == nil {
			return nil
		}
		for n := binary.BigEndian.Uint64(first); n <= last; n++ {
			if err := outbox.Delete(number(n)); err != nil {
				return err
			}
		}
		return nil
	})
}

func number(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
