// Loaded before a server that knows nothing of it: ends the process when whoever started it, and holds its stdin, is gone.
process.stdin.on('close', () => process.exit()).resume()
