"""The SID as data: item to SID table, sid_token vocabulary, prefix trie."""
