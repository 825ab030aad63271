"""python -m utils.synthetic: write the synthetic data root of a profile."""

from utils.synthetic.data_root import main

main()
